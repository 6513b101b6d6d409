//! The page of the admin address in a real Chromium: its figures are those of `/stats`, it says what is
//! wrong, and it stays quiet.

use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{ClickHouse, Folder, Server, SmallDisk, Tab, post, shared_clickhouse, wait_for};

/// What the page shows, as JSON: a list of rows for each table, the tiles, and the badge.
const SHOWN: &str = r##"(() => {
  const text = node => node.innerText.trim();
  const rows = id => [...document.querySelectorAll(`#${id} tbody tr`)].map(row => [...row.cells].map(text));
  const tiles = {};
  for (const tile of document.querySelectorAll("#tiles > div"))
    tiles[text(tile.querySelector("dt"))] = text(tile.querySelector("dd"));
  const ids = ["ledger", "latencies", "inserts", "servers", "codes", "unknown", "shed", "replies", "held"];
  return { tiles, state: text(document.querySelector("#state")), at: document.body.dataset.unixMs,
           balance: text(document.querySelector("#balance")),
           ...Object.fromEntries(ids.map(id => [id, rows(id)])) };
})()"##;

fn open(server: &Server) -> Tab {
    let mut tab = Tab::open(&format!("http://{}/", server.admin_address()));
    tab.wait_until("document.readyState === 'complete' && !!document.body.dataset.unixMs");
    tab
}

fn stats(server: &Server) -> Value {
    serde_json::from_str(&server.admin_get("/stats").text()).unwrap()
}

/// A number as the page writes it, without the commas.
fn number(shown: &Value) -> u64 {
    let text = shown.as_str().unwrap_or_else(|| panic!("{shown}")).replace(',', "");
    text.parse().unwrap_or_else(|_| panic!("{text}"))
}

/// The row of a table that begins with this cell.
fn row<'a>(table: &'a Value, first: &str) -> &'a Value {
    let mut rows = table.as_array().unwrap().iter();
    rows.find(|row| row[0] == first).unwrap_or_else(|| panic!("no row {first} in {table}"))
}

/// Puts a picture beside the others when `PAGE_PICTURES` names a folder.
fn picture(tab: &mut Tab, name: &str) {
    if let Some(folder) = std::env::var_os("PAGE_PICTURES") {
        tab.picture(&PathBuf::from(folder).join(name));
    }
}

#[test]
#[ignore = "needs Chromium: make test-outside"]
fn the_figures_on_the_page_are_those_of_the_statistics_and_of_clickhouse() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &[]);
    let good = r#"{"event":"a","level":3}"#;
    for _ in 0..40 {
        assert_eq!(post(server.address(), "/api/events", [good; 30].join("\n").as_bytes()).status, 200);
    }
    assert_eq!(
        post(
            server.address(),
            "/api/events",
            br#"{"event":"b"}
{"sequence":"x"}
[1]
{"event":"c"}"#
        )
        .status,
        200
    );
    assert_eq!(post(server.address(), "/nowhere", b"{}").status, 404);
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 1202);
    server.wait_for_rows(clickhouse, &format!("{database}.events_quarantine"), 2);
    server.wait_until_drained();

    let mut tab = open(&server);
    let asked = stats(&server)["unix_ms"].as_u64().unwrap();
    tab.wait_until(&format!("Number(document.body.dataset.unixMs) > {asked}"));
    let (shown, stats) = (tab.value(SHOWN), stats(&server));
    let figures = &stats["figures"];
    assert_eq!(shown["state"], "Takes events");
    let in_all = |tile: &str| {
        let tile = shown["tiles"][tile].as_str().unwrap_or_else(|| panic!("{shown}"));
        let all = tile.lines().find_map(|line| line.strip_suffix(" in all")).unwrap_or_else(|| panic!("{tile}"));
        number(&json!(all))
    };
    assert_eq!(in_all("Accepted"), 1202);
    assert_eq!(in_all("Accepted"), figures["events_accepted_total"].as_u64().unwrap());
    assert_eq!(in_all("Inserted"), 1202);
    assert_eq!(in_all("Rejected lines"), 2);
    assert_eq!(in_all("Requests"), 42);
    for (label, columns) in [("events", 1202), ("events_quarantine", 2)] {
        let (ledger, accounts) = (row(&shown["ledger"], label), &stats["ledger"][label]);
        for (column, account) in ["recovered", "committed", "inserted", "spooled", "set_aside"].iter().enumerate() {
            assert_eq!(number(&ledger[column + 3]), accounts[account].as_u64().unwrap(), "{label} {account}");
        }
        let stored = clickhouse.query(&format!("SELECT count() FROM {database}.{label}"));
        assert_eq!(number(&ledger[5]), stored.trim().parse::<u64>().unwrap());
        assert_eq!(number(&ledger[5]), columns);
    }
    assert_eq!(shown["balance"], "It balances.");
    for (table, family) in [("codes", "events_rejected_total"), ("replies", "requests_total")] {
        let of_stats = figures[family].as_object().unwrap().iter().filter(|(_, count)| **count != json!(0));
        let of_stats: Vec<_> = of_stats.collect();
        assert_eq!(shown[table].as_array().unwrap().len(), of_stats.len(), "{}", shown[table]);
        for (name, count) in of_stats {
            assert_eq!(number(&row(&shown[table], name)[1]), count.as_u64().unwrap(), "{family} {name}");
        }
    }
    assert_eq!(number(&row(&shown["unknown"], "events: level")[1]), 1200);
    let reply = row(&shown["latencies"], "From the request to its reply");
    assert_eq!(number(&reply[1]), figures["request_seconds"]["count"].as_u64().unwrap());
    assert!(reply[4].as_str().unwrap().ends_with('s'), "{reply}");
    assert_eq!(tab.problems(), [""; 0]);
    picture(&mut tab, "figures.png");
}

#[test]
#[ignore = "needs Chromium: make test-outside"]
fn the_page_says_plainly_what_is_wrong() {
    let mut clickhouse = ClickHouse::start();
    let database = clickhouse.database();
    let mut server = Server::start(&clickhouse, &database, &["--shutdown-delay", "20s"]);
    let mut tab = open(&server);
    tab.wait_until("document.querySelector('#state').innerText === 'Takes events'");
    assert_eq!(tab.value("document.title"), "sluicegate");

    // A block is held: the page names the reason and the command.
    clickhouse.query(&format!("RENAME TABLE {database}.events TO {database}.moved"));
    assert_eq!(post(server.address(), "/api/events", br#"{"event":"a"}"#).status, 200);
    tab.wait_until("!document.querySelector('#held').hidden");
    let held = tab.value(SHOWN)["held"][0].clone();
    assert!(held[5].as_str().unwrap().starts_with("sluicegate spool requeue"), "{held}");
    assert!(held[4].as_str().unwrap().len() > 10, "{held}");
    tab.wait_until("document.querySelector('#state').innerText === 'Takes events, with warnings'");
    assert_eq!(tab.problems(), [""; 0]);
    clickhouse.query(&format!("RENAME TABLE {database}.moved TO {database}.events"));
    tab.wait_until("document.querySelector('#held').hidden");
    tab.wait_until("document.querySelector('#state').innerText === 'Takes events'");

    // ClickHouse is away, and back.
    clickhouse.kill();
    assert_eq!(post(server.address(), "/api/events", br#"{"event":"b"}"#).status, 200);
    tab.wait_until("document.querySelector('#state').innerText === 'Takes events; ClickHouse is away'");
    tab.wait_until("document.querySelector('#warnings').innerText.includes('wait in the spool')");
    picture(&mut tab, "away.png");
    clickhouse.restart();
    tab.wait_until("document.querySelector('#state').innerText === 'Takes events'");
    tab.wait_until("document.querySelector('#warnings').hidden");
    assert_eq!(tab.problems(), [""; 0]);

    // It stops, and it is gone.
    server.signal(Signal::TERM);
    tab.wait_until("document.querySelector('#state').innerText === 'Stopping'");
    tab.forget_problems();
    server.kill9();
    tab.wait_until("document.querySelector('#state').innerText === 'No answer from the server'");
}

#[test]
#[ignore = "needs Chromium: make test-outside"]
fn the_page_says_that_the_disk_is_full() {
    let (clickhouse, disk) = (shared_clickhouse(), std::sync::Arc::new(SmallDisk::new(256 << 20)));
    let database = clickhouse.database();
    let server = Server::start_on(&disk, clickhouse, &database, &["--disk-free-min", "32MiB"]);
    server.wait_until_ready();
    let mut tab = open(&server);
    tab.wait_until("document.querySelector('#state').innerText === 'Takes events'");
    disk.fill();
    tab.wait_until("document.querySelector('#warnings').innerText.includes('disk is full')");
    // Once an event found no room, it takes none.
    wait_for(
        || "events are taken on a full disk".to_owned(),
        || (post(server.address(), "/api/events", br#"{"event":"a"}"#).status == 503).then_some(()),
    );
    tab.wait_until("document.querySelector('#state').innerText === 'Takes no events'");
    disk.free();
    tab.wait_until("document.querySelector('#state').innerText === 'Takes events'");
    assert_eq!(tab.problems(), [""; 0]);
}

#[test]
#[ignore = "needs Chromium: make test-outside"]
fn events_are_found_followed_and_replayed_on_the_page_and_stay_text() {
    let clickhouse = shared_clickhouse();
    let (database, folder) = (clickhouse.database(), Folder::new());
    let secret = folder.path().join("password");
    std::fs::write(&secret, "").unwrap();
    let server = Server::start(clickhouse, &database, &["--clickhouse-password-file", secret.to_str().unwrap()]);
    let markup = r#"{"event":"<img src=x onerror=\"document.title='run'\">","param_str":"one"}"#;
    let bad = r#"{"event":"<b>bad</b>","sequence":"no number"}"#;
    let body = [markup, r#"{"event":"plain","param_str":"two"}"#, bad].join("\n");
    assert_eq!(post(server.address(), "/api/events", body.as_bytes()).status, 200);
    server.wait_for_rows(clickhouse, &format!("{database}.events"), 2);
    server.wait_for_rows(clickhouse, &format!("{database}.events_quarantine"), 1);
    let mut tab = open(&server);
    let submit = |form: &str| format!("document.querySelector('#{form}').requestSubmit()");

    tab.value(&submit("events-form"));
    tab.wait_until("document.querySelectorAll('#newest tbody tr').length === 2");
    assert_eq!(tab.value("document.querySelector('#newest').innerText.includes('<img src=x')"), json!(true));
    let filter = "const form = document.querySelector('#events-form').elements;\
                  form.column.value = 'param_str'; form.value.value = 'two';";
    tab.value(&format!("{{ {filter} {} }}", submit("events-form")));
    tab.wait_until("document.querySelectorAll('#newest tbody tr').length === 1");
    assert_eq!(tab.value("document.querySelector('#newest').innerText.includes('plain')"), json!(true));

    tab.value(&submit("live-form"));
    tab.wait_until("document.querySelector('#live-state').innerText.startsWith('Waiting')");
    let seen = || {
        post(server.address(), "/api/events", br#"{"event":"<i>live</i>"}"#);
        tab.value("document.querySelector('#live').innerText.includes('<i>live</i>')") == json!(true)
    };
    let mut seen = seen;
    wait_for(|| "the tail shows nothing".to_owned(), || seen().then_some(()));
    tab.value(&submit("live-form"));
    tab.wait_until("document.querySelector('#live-state').innerText === 'Stopped.'");

    tab.value(&submit("quarantine-form"));
    tab.wait_until("document.querySelector('#quarantine').innerText.includes('<b>bad</b>')");
    tab.value("document.querySelector('#replay-try').click()");
    tab.wait_until("document.querySelector('#quarantine-state').innerText.includes('1 are refused again')");

    tab.wait_until("document.querySelector('#settings').textContent.includes('batch-rows')");
    assert_eq!(tab.value("document.title"), "sluicegate");
    assert_eq!(tab.value("document.querySelectorAll('main img, main b, main i').length"), json!(0));
    assert_eq!(tab.problems(), [""; 0]);
}

#[test]
#[ignore = "needs Chromium: make test-outside"]
fn the_page_can_be_used_on_a_phone_in_the_dark_and_by_keyboard() {
    let clickhouse = shared_clickhouse();
    let database = clickhouse.database();
    let server = Server::start(clickhouse, &database, &[]);
    post(server.address(), "/api/events", br#"{"event":"a"}"#);
    let mut tab = open(&server);
    let ground = "getComputedStyle(document.body).backgroundColor";
    tab.show(1280, 900, "light");
    let light = tab.value(ground);
    picture(&mut tab, "light.png");
    tab.show(390, 844, "dark");
    assert_ne!(tab.value(ground), light);
    let width = "document.documentElement.scrollWidth <= document.documentElement.clientWidth";
    assert_eq!(tab.value(width), json!(true), "the page is wider than the phone");
    picture(&mut tab, "phone.png");
    // Every control is reached by the key, in the order of the page, and can be seen to be.
    let controls = "[...document.querySelectorAll('a[href], button, input, select, summary, [tabindex=\"0\"]')]\
                    .filter(control => control.checkVisibility()).length";
    let controls = tab.value(controls).as_u64().unwrap();
    let mut reached = std::collections::BTreeSet::new();
    for _ in 0..controls {
        tab.press("Tab");
        let focus = tab.value(
            "(() => { const active = document.activeElement; \
             return [[...document.querySelectorAll('*')].indexOf(active), getComputedStyle(active).outlineStyle]; })()",
        );
        assert_eq!(focus[1], "solid", "{focus}");
        reached.insert(focus[0].as_u64().unwrap());
    }
    assert_eq!(reached.len() as u64, controls);
    assert_eq!(tab.problems(), [""; 0]);
}
