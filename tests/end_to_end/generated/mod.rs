//! The oracle on generated tables: columns of any types in each other, and lines made for them, through the
//! server and through ClickHouse's own `JSONEachRow`. What differs has a reason in the list of
//! `src/ndjson/mod.rs`.
//!
//! `ORACLE_TABLES` and `ORACLE_LINES` say how many tables there are and how many lines each gets,
//! `ORACLE_SEED` which, and `ORACLE_FIRST` with which table to begin.

mod lines;
mod reasons;
mod scalars;
mod tables;
mod types;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use self::tables::{Difference, Table};
use crate::support::{ClickHouse, Folder, Server, shared_clickhouse};

/// The seed of a run that is not told another one: the same tables and lines in each run of the tests.
const SEED: u64 = 16;
const TABLES: u64 = 200;
const LINES: u64 = 500;

/// Tables that one server has at a time.
const TABLES_AT_ONCE: u64 = 200;

/// Differences that are printed.
const SHOWN_MAX: usize = 40;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// What came out.
#[derive(Default)]
struct Findings {
    lines: u64,
    accepted: u64,
    /// Lines without a reason to differ.
    compared: u64,
    /// Lines that differ and have such a reason, by reason.
    excused: BTreeMap<&'static str, u64>,
    wrong: Vec<String>,
    /// Names of types that columns have, and parts of them.
    types: BTreeSet<&'static str>,
}

#[test]
fn generated_lines_become_what_clickhouse_makes_of_them() {
    let clickhouse = shared_clickhouse();
    // The list of differences is that of this version. Any other has to store what was accepted.
    let is_same_version = clickhouse.query("SELECT version()").starts_with("26.7.");
    let (seed, lines) = (number("ORACLE_SEED", SEED), number("ORACLE_LINES", LINES));
    let (tables, mut found) = (number("ORACLE_TABLES", TABLES), Findings::default());
    let mut shown = 0;
    for first in (number("ORACLE_FIRST", 0)..tables).step_by(TABLES_AT_ONCE as usize) {
        let generate = |number| Table::generate(seed, number, lines);
        let some: Vec<Table> = (first..tables.min(first + TABLES_AT_ONCE)).map(generate).collect();
        run(clickhouse, &some, &mut found, is_same_version);
        println!("{} of {tables} tables, {} lines differ", first + some.len() as u64, found.wrong.len());
        found.wrong.iter().skip(shown).take(SHOWN_MAX).for_each(|wrong| println!("{wrong}"));
        shown = found.wrong.len();
    }
    let Findings { lines, accepted, compared, excused, wrong, types } = found;
    println!(
        "{tables} tables, {lines} lines, {accepted} accepted, {compared} without a reason to differ; {} differ; \
         differing with a reason: {excused:#?}",
        wrong.len()
    );
    assert!(wrong.is_empty(), "{} lines with ORACLE_SEED={seed} differ without a reason", wrong.len());
    assert!(accepted > lines / 2 && compared > lines / 2, "this compares little");
    if (seed, tables, is_same_version) == (SEED, TABLES, true) {
        let all: BTreeSet<&str> = types::NAMES.into();
        assert_eq!(types, all, "every type is in some table");
        let idle: Vec<&&str> = reasons::ALL.iter().filter(|reason| !excused.contains_key(**reason)).collect();
        assert!(idle.is_empty(), "no reason any more: {idle:?}");
    }
}

fn run(clickhouse: &ClickHouse, tables: &[Table], found: &mut Findings, is_same_version: bool) {
    let database = clickhouse.database();
    let theirs = format!("{database}_theirs");
    clickhouse.query(&format!("CREATE DATABASE {theirs}"));
    for table in tables {
        table.create(clickhouse, &database);
        table.create(clickhouse, &theirs);
    }
    let folder = Folder::new();
    let path = Path::new(folder.path()).join("sluicegate.toml").to_string_lossy().into_owned();
    let sections: String = tables.iter().map(|table| format!("[table.{}]\n", table.name)).collect();
    std::fs::write(&path, sections).unwrap();
    let server = Server::start(clickhouse, &database, &["--config", &path]);
    let taken: Vec<Vec<bool>> = tables.iter().map(|table| table.send(&server)).collect();
    for (table, taken) in tables.iter().zip(&taken) {
        table.insert(clickhouse, &theirs, taken);
    }
    server.wait_until_drained();
    for (table, taken) in tables.iter().zip(taken) {
        let accepted = taken.iter().filter(|taken| **taken).count() as u64;
        found.lines += table.lines.len() as u64;
        found.accepted += accepted;
        found.compared += table.lines.iter().filter(|line| line.reasons.is_empty()).count() as u64;
        table.columns.iter().for_each(|column| types::name_parts(&column.data_type, &mut found.types));
        let stored = clickhouse.query(&format!("SELECT count() FROM {database}.{}", table.name));
        let refused = clickhouse.query(&format!(
            "SELECT message, line FROM {database}.{}_quarantine WHERE code = 'refused_by_clickhouse' LIMIT 3",
            table.name
        ));
        if !refused.is_empty() || stored.trim() != accepted.to_string() {
            let stored = stored.trim();
            found.wrong.push(format!("{}: {stored} of {accepted} are stored; refused are {refused}\n", table.name));
        }
        for difference in table.differences(clickhouse, [&database, &theirs]) {
            let line = &table.lines[difference.line];
            for reason in &line.reasons {
                *found.excused.entry(reason).or_default() += 1;
            }
            if line.reasons.is_empty() && is_same_version {
                found.wrong.push(explain(clickhouse, &server, table, &difference, [&database, &theirs]));
            }
        }
    }
    assert!(server.stop().success());
    for database in [database, theirs] {
        clickhouse.query(&format!("DROP DATABASE {database}"));
    }
}

/// A difference in words: the columns that differ, or why one of the two has no row.
fn explain(
    clickhouse: &ClickHouse,
    server: &Server,
    table: &Table,
    difference: &Difference,
    databases: [&str; 2],
) -> String {
    let json = &table.lines[difference.line].json;
    let mut text = format!("{}: {json}\n", table.name);
    for index in &difference.columns {
        let column = &table.columns[*index];
        let [ours, theirs] = databases.map(|database| {
            let (cell, id) = (column.quoted(), difference.line);
            let from = format!("FROM {database}.{} WHERE id = {id} FORMAT TSVRaw", table.name);
            let row =
                clickhouse.try_query(&format!("SELECT toString({cell}), hex(formatRow('RowBinary', {cell})) {from}"));
            row.unwrap_or_else(|error| error).trim().to_owned()
        });
        writeln!(text, "    {} {}: ours {ours}, theirs {theirs}", column.name, types::spell(&column.data_type))
            .unwrap();
    }
    match difference.found {
        [true, true] => {}
        [false, _] => writeln!(text, "    ours refused: {}", table.dry_run(server, json)).unwrap(),
        [true, false] => {
            let error = table.try_insert(clickhouse, databases[1], std::slice::from_ref(json), 0);
            writeln!(text, "    theirs refused: {error:?}").unwrap();
        }
    }
    text
}
