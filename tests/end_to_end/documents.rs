//! The commands in the documents, run as they are printed beside a server, page by page; and their
//! configurations, read by the server.
//!
//! A block of commands that can't run here has a comment in the line above it that says why. `make` is
//! asked only whether it has the target: what the targets do is for tests of their own.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Folder, Server, run, shared_clickhouse};

/// Why a block is not run, as it stands in the comment above it.
const REASONS: [&str; 4] =
    ["needs root", "needs another host", "starts a server of its own", "every run of the tests does"];

/// A block of code.
struct Block {
    /// `page:line`.
    place: String,
    text: String,
    not_run: Option<String>,
}

/// The blocks of a page in this language.
fn blocks(page: &str, language: &str) -> Vec<Block> {
    let text = fs::read_to_string(root().join(page)).unwrap();
    let (mut found, mut comment) = (Vec::new(), None);
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let line = line.trim_start();
        if let Some(reason) = line.strip_prefix("<!-- not run: ") {
            comment = Some(reason.trim_end_matches(" -->").to_owned());
            continue;
        }
        let Some(named) = line.strip_prefix("```") else {
            comment = None;
            continue;
        };
        let inside = lines.by_ref().map(|(_, line)| line).take_while(|line| line.trim() != "```");
        let text = inside.collect::<Vec<_>>().join("\n");
        let not_run = comment.take();
        if named == language {
            found.push(Block { place: format!("{page}:{}", number + 1), text, not_run });
        }
    }
    found
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The pages for users.
fn pages() -> Vec<String> {
    let docs =
        fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let docs = docs.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}"));
    let mut pages: Vec<String> = docs.chain(["README.md".to_owned(), "CONTRIBUTING.md".to_owned()]).collect();
    pages.sort();
    pages
}

/// What a reader has in the folder where the commands are tried.
fn prepare(folder: &Path, server: &Server, flags: &[(&str, String)]) {
    let body = fs::read_to_string(root().join("bench/corpus/events-30.ndjson")).unwrap();
    fs::write(folder.join("events.ndjson"), body).unwrap();
    let commands = folder.join("bin");
    fs::create_dir_all(&commands).unwrap();
    symlink(env!("CARGO_BIN_EXE_sluicegate"), commands.join("sluicegate")).unwrap();
    let mut file = String::new();
    for (key, value) in flags {
        file.push_str(&format!("{key} = {value:?}\n"));
    }
    file.push_str(&format!("listen = [\"{}\"]\nadmin-listen = \"{}\"\n", server.address(), server.admin_address()));
    fs::write(folder.join("sluicegate.toml"), file).unwrap();
}

#[test]
fn every_command_in_the_documents_works_as_it_is_printed() {
    let clickhouse = shared_clickhouse();
    let mut ran = 0;
    for page in pages() {
        let all = blocks(&page, "sh");
        for block in &all {
            if let Some(reason) = &block.not_run {
                assert!(REASONS.contains(&reason.as_str()), "{}: {reason}", block.place);
            }
        }
        let runnable: Vec<&Block> = all.iter().filter(|block| block.not_run.is_none()).collect();
        if runnable.is_empty() {
            continue;
        }
        let (database, folder) = (clickhouse.database(), Folder::new());
        let server = Server::start(clickhouse, &database, &[]);
        let spool = server.spool_dir().to_string_lossy().into_owned();
        let settings = [("clickhouse-url", clickhouse.url()), ("database", database.clone()), ("spool-dir", spool)];
        prepare(folder.path(), &server, &settings);
        for block in runnable {
            // Where the pages say localhost, this server and this ClickHouse are meant.
            let text = block
                .text
                .replace("localhost:8080", &server.address().to_string())
                .replace("localhost:9080", &server.admin_address().to_string())
                .replace("sluicegate send ", &format!("sluicegate send --url http://{}/api/events ", server.address()))
                .replace("http://localhost:8123/?", &format!("{}/?database={database}&", clickhouse.url()));
            let script = format!(
                "set -euo pipefail\nmake() {{ command make -n -C {root:?} \"$@\" >/dev/null; }}\n\
                 curl() {{ command curl -sS --fail-with-body \"$@\"; }}\n{text}\n",
                root = root(),
            );
            let path = format!("{}:{}", folder.path().join("bin").display(), std::env::var("PATH").unwrap());
            let output = Command::new("bash")
                .args(["-c", &script])
                .current_dir(folder.path())
                .env("PATH", path)
                .env("SLUICEGATE_CONFIG", folder.path().join("sluicegate.toml"))
                .output()
                .unwrap();
            let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            assert!(
                output.status.success(),
                "{}\n{script}\n{}\n{}",
                block.place,
                said(&output.stdout),
                said(&output.stderr)
            );
            ran += 1;
        }
    }
    assert!(ran > 5, "only {ran} blocks were run");
}

#[test]
fn every_configuration_in_the_documents_is_one() {
    let mut read = 0;
    for page in pages() {
        for block in blocks(&page, "toml") {
            let folder = Folder::new();
            let file = folder.path().join("sluicegate.toml");
            fs::write(&file, &block.text).unwrap();
            let (ok, _, said) = run(&["serve", "--print-config", "--config", file.to_str().unwrap()]);
            assert!(ok, "{}: {said}", block.place);
            read += 1;
        }
    }
    assert!(read > 2, "only {read} configurations were read");
}

#[test]
fn every_statement_in_the_documents_is_one() {
    let clickhouse = shared_clickhouse();
    let blocks: Vec<Block> = pages().iter().flat_map(|page| blocks(page, "sql")).collect();
    for Block { place, text, .. } in &blocks {
        for statement in text.split(";\n").filter(|statement| !statement.trim().is_empty()) {
            let parsed = clickhouse.try_query(&format!("EXPLAIN AST {statement}"));
            assert!(parsed.is_ok(), "{place}: {parsed:?}");
        }
    }
    assert!(blocks.iter().any(|block| block.place.starts_with("README.md:")), "README says how to set the window");
}
