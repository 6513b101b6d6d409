//! Server and ClickHouse are killed at random instants, under load, again and again: what was
//! acknowledged is in ClickHouse once, and of the rest nothing is there in part or twice.
//!
//! `CRASH_ROUNDS` says how many times, `CRASH_SEED` repeats the choices of a former run (not the
//! instants: those are the machine's). `CRASH_UPGRADE_FROM` is the program of an older release, which the
//! first half of each series runs, with the one table that it knows.
//!
//! A run that fails says which requests are wrong, when each was sent and answered, and what was
//! killed around it; the server's log over all its lives, the spool and ClickHouse's folder stay.

use std::thread;
use std::time::Instant;

use crate::support::{ClickHouse, Client, Counts, Folder, Load, Random, Server, Variant, each_engine, post, seed};

/// Rounds when nobody says how many.
const ROUNDS: u64 = 24;

/// After so many rounds everything is drained and looked at.
const ROUNDS_OF_A_SERIES: u64 = 25;

/// With a key or with identities they send again until there is a reply, without never.
const CLIENTS: [Client; 6] = [
    Client::WithoutKey,
    Client::WithKey,
    Client::WithIdentities,
    Client::Inserted,
    Client::WithKey,
    Client::WithoutKey,
];

/// With the keys and identities of those of `events`, which are others here.
const CLIENTS_OF_OTHERS: [Client; 3] = [Client::WithKey, Client::WithIdentities, Client::WithoutKey];

/// The tables beside `events`. The last one is away now and then, and what was taken for it is held.
const OTHERS: [&str; 2] = ["hits", "few"];

const FLAGS: [&str; 10] = [
    "--batch-age",
    "50ms",
    "--batch-rows",
    "4000",
    "--inserted-timeout",
    "500ms",
    "--shutdown-timeout",
    "60s",
    "--dedup-field",
    "session",
];

#[derive(Default)]
struct Kills {
    server: u64,
    clickhouse: u64,
    both: u64,
}

each_engine!(killed_at_random_instants_nothing_is_lost_and_nothing_is_doubled,);

fn killed_at_random_instants_nothing_is_lost_and_nothing_is_doubled(variant: Variant) {
    let rounds =
        std::env::var("CRASH_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().expect("CRASH_ROUNDS is a number"));
    let seed = seed("CRASH_SEED");
    let begun = Instant::now();
    let mut random = Random::new(seed, 0);
    let mut clickhouse = ClickHouse::start();
    let (mut kills, mut counts) = (Kills::default(), Counts::default());
    // Both durabilities in turn, each at least once.
    let series_count = rounds.div_ceil(ROUNDS_OF_A_SERIES).max(2);
    for series in 0..series_count {
        let durability = if series % 2 == 0 { "sync" } else { "written" };
        let rounds = (series + 1) * rounds / series_count - series * rounds / series_count;
        let name = format!("CRASH_SEED={seed}, series {} with durability {durability}", series + 1);
        counts += run_series(
            &mut clickhouse,
            &name,
            &variant.and(&["--durability", durability]),
            rounds,
            &mut random,
            &mut kills,
        );
        println!(
            "series {} of {series_count}, {rounds} rounds with durability {durability}: all there, once",
            series + 1
        );
    }
    let Kills { server, clickhouse, both } = kills;
    println!(
        "{rounds} rounds in {} s: killed {server} times the server, {clickhouse} times ClickHouse, {both} times \
         both; {counts}",
        begun.elapsed().as_secs()
    );
    assert!(counts.events > 100 * rounds, "too little happened");
}

/// Says what was done, when the series fails; the folders say that they stay.
struct Evidence<'a> {
    series: &'a str,
    database: &'a str,
    loads: &'a [Load],
}

impl Drop for Evidence<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let Self { series, database, loads } = self;
            let notes = loads.first().map(Load::notes).unwrap_or_default();
            eprintln!("{series}, in {database}, has failed. What was done:\n{notes}");
        }
    }
}

fn run_series(
    clickhouse: &mut ClickHouse,
    series: &str,
    flags: &[&str],
    rounds: u64,
    random: &mut Random,
    kills: &mut Kills,
) -> Counts {
    let database = clickhouse.database();
    assert!(Server::start(clickhouse, &database, &[]).stop().success(), "it makes the first table");
    for table in OTHERS {
        clickhouse.query(&format!("CREATE TABLE {database}.{table} AS {database}.events"));
    }
    let folder = Folder::new();
    let file = folder.path().join("sluicegate.toml").to_string_lossy().into_owned();
    std::fs::write(&file, "[table.events]\n[table.hits]\nbatch-age = \"200ms\"\n[table.few]\n").unwrap();
    let (older, config) = (std::env::var("CRASH_UPGRADE_FROM").ok(), ["--config", file.as_str()]);
    let for_now: &[&str] = if older.is_some() { &[] } else { &config };
    let flags = [&FLAGS, flags, for_now].concat();
    let mut server = Server::start_release(older.as_deref(), clickhouse, &database, &flags);
    // Its folder stays until what it did is looked at.
    let _folder = server.folder();
    let seed = random.next();
    let others = OTHERS.map(|table| Load::new(server.address(), seed).for_table(table));
    let loads: Vec<Load> = std::iter::once(Load::new(server.address(), seed)).chain(others).collect();
    let _evidence = Evidence { series, database: &database, loads: &loads };
    let [load, hits, few] = &loads[..] else { panic!("there are three") };
    let mut is_away = false;
    let mut round = 0;
    let mut kill_at_random = |server: &mut Server, rounds: u64, others: bool| {
        for _ in 0..rounds {
            round += 1;
            // Short ones hit a start, long ones inserts under way.
            thread::sleep(random.milliseconds(10, 900));
            server.assert_runs();
            let kind = random.below(8);
            if kind < 5 || kind == 7 {
                load.note(format!("round {round}: the server is killed"));
                server.kill9();
            }
            if kind >= 5 {
                load.note(format!("round {round}: ClickHouse is killed"));
                clickhouse.kill();
            }
            match kind {
                0..5 => kills.server += 1,
                5 | 6 => kills.clickhouse += 1,
                _ => kills.both += 1,
            }
            if kind < 5 || kind == 7 {
                // What an earlier life sent in one format may have to be repeated in another.
                let format = ["rowbinary", "native"][random.below(2) as usize];
                let compression = ["none", "lz4", "zstd"][random.below(3) as usize];
                server.set_environment(&[
                    ("SLUICEGATE_INSERT_FORMAT", format),
                    ("SLUICEGATE_INSERT_COMPRESSION", compression),
                ]);
                *server = server.spawn_again();
                load.note(format!("round {round}: the server is back"));
            }
            if kind >= 5 {
                thread::sleep(random.milliseconds(0, 300));
                clickhouse.restart();
                load.note(format!("round {round}: ClickHouse is back"));
            }
            if others && random.below(3) == 0 {
                is_away = !is_away;
                rename_last(clickhouse, &database, is_away);
                load.note(format!("round {round}: the last table is away: {is_away}"));
            }
        }
        if is_away {
            is_away = false;
            rename_last(clickhouse, &database, false);
        }
    };
    load.during(&CLIENTS, || {
        let mut left = rounds;
        if older.is_some() {
            left -= rounds / 2;
            kill_at_random(&mut server, rounds / 2, false);
            server.kill9();
            server = server.upgrade(&config);
            server.wait_until_ready();
            load.note("the server is another release".to_owned());
        }
        hits.during(&CLIENTS_OF_OTHERS, || {
            few.during(&CLIENTS_OF_OTHERS, || kill_at_random(&mut server, left, true));
        });
        server.wait_until_ready();
    });
    load.note("no more requests".to_owned());
    assert_eq!(post(server.admin_address(), "/spool/requeue", b"").status, 200);
    server.wait_until_drained();
    server.wait_until_nothing_is_spooled();
    load.note("the spool is empty".to_owned());
    let log = server.log();
    assert!(!log.contains("damaged"), "a kill damages nothing:\n{log}");
    assert!(server.stop().success());
    loads.iter().for_each(|load| load.check(clickhouse, &database));
    clickhouse.query(&format!("DROP DATABASE {database} SYNC"));
    loads.iter().map(Load::counts).fold(Counts::default(), |mut all, counts| {
        all += counts;
        all
    })
}

/// Takes the last of the tables away, or brings it back.
fn rename_last(clickhouse: &ClickHouse, database: &str, is_away: bool) {
    let (from, to) = if is_away { ("few", "few_away") } else { ("few_away", "few") };
    clickhouse.query(&format!("RENAME TABLE {database}.{from} TO {database}.{to}"));
}
