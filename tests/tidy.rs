//! The sources are held against the map in `src/lib.rs` and against what the project writes about
//! itself: which room stands on which, how long a file may be, which words are not used.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Lines of one file.
const LINES_MAX: usize = 500;

/// Words of a test's name: fewer say what is called, not what holds.
const TEST_WORDS_MIN: usize = 3;

/// Words that the project does not use, or not for what they were used for, each with a better one.
const RETIRED: [(&str, &str); 8] = [
    ("See the module", "one sentence about the type: rustdoc shows nothing else"),
    (" person", "operator, or client"),
    (" mend", "fix"),
    ("Manners", "ReplyOptions"),
    ("Desk", "RequestContext"),
    ("Figures", "Metrics for counters, Summary for a request's numbers"),
    ("refused line", "rejected line"),
    ("from elsewhere", "cross-site"),
];

/// Where those words may stand: in what they mean in plain English, or in what is fixed outside.
const STILL_USED: [(&str, &str); 0] = [];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust source below these folders, with its path from the root.
fn sources(folders: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    assert!(found.len() > 20, "the sources are not where they are looked for: {found:?}");
    found
}

/// The rooms of the map, from the ground up: each with the rooms that it stands on.
fn map() -> Vec<(String, BTreeSet<String>)> {
    let text = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let (_, rest) = text.split_once("| room | stands on |").expect("the map has a table of rooms");
    let cells = |line: &str| line.trim_start_matches("//! |").split('|').map(str::to_owned).collect::<Vec<_>>();
    let rooms = rest.lines().skip(2).take_while(|line| line.starts_with("//! |")).map(cells);
    let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    rooms.map(|cells| (names(&cells[0]).concat(), names(&cells[1]).into_iter().collect())).collect()
}

/// The room of a source of the crate; `None` for `main.rs` and `lib.rs`.
fn room_of(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    let room = inside.split_once('/').map_or_else(|| inside.strip_suffix(".rs"), |(room, _)| Some(room))?;
    (!matches!(room, "main" | "lib")).then_some(room)
}

/// A source without what is only compiled for tests, and without comments.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    text.lines().map(|line| line.split("//").next().unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

fn is_test_source(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("/tests.rs")
}

/// Which rooms each room's code names.
fn imports() -> BTreeMap<String, BTreeMap<String, String>> {
    let mut imports: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for (path, text) in sources(&["src"]) {
        let Some(room) = room_of(&path) else { continue };
        let of_room = imports.entry(room.to_owned()).or_default();
        if is_test_source(&path) {
            continue;
        }
        for named in code(&text).split("crate::").skip(1) {
            let name: String = named.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
            if name != room && !name.is_empty() {
                of_room.entry(name).or_insert_with(|| path.clone());
            }
        }
    }
    imports
}

#[test]
fn each_room_stands_on_what_the_map_says_and_on_nothing_else() {
    let (map, imports) = (map(), imports());
    let mut wrong = Vec::new();
    let drawn: BTreeSet<&String> = map.iter().map(|(room, _)| room).collect();
    let built: BTreeSet<&String> = imports.keys().collect();
    assert_eq!(drawn, built, "the map and the folders have the same rooms");
    for (room, stands_on) in &map {
        for (imported, path) in &imports[room] {
            if !stands_on.contains(imported) {
                wrong.push(format!("{path} names {imported}, which the map does not let {room} stand on"));
            }
        }
        let unused = stands_on.iter().filter(|named| !imports[room].contains_key(*named));
        wrong.extend(unused.map(|named| format!("the map lets {room} stand on {named}, which it does not name")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_map_is_a_staircase_from_the_ground_up() {
    let mut below = BTreeSet::new();
    for (room, stands_on) in map() {
        let above: Vec<_> = stands_on.difference(&below).collect();
        assert!(above.is_empty(), "{room} stands on {above:?}, which come after it in the map");
        below.insert(room);
    }
    assert!(below.len() > 15, "the map was read: {below:?}");
}

#[test]
fn some_rooms_stand_on_no_more_than_the_design_allows() {
    let imports = imports();
    let named = |room: &str| imports[room].keys().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(named("spool"), ["batch", "clock", "limits"]);
    assert_eq!(named("http"), ["limits"], "framing does no I/O");
    assert!(!named("admin").contains(&"insert") && !named("commands").contains(&"insert"));
    assert!(named("worker").contains(&"intake") && named("engine_may").contains(&"intake"));
    assert!(!named("worker").contains(&"engine_may") && !named("engine_may").contains(&"worker"));
}

#[test]
fn every_room_has_a_mod_and_no_file_of_its_name_beside_it() {
    for (path, _) in sources(&["src"]) {
        let path = Path::new(&path);
        let beside = path.with_extension("");
        assert!(!root().join(&beside).is_dir(), "{} stands beside the folder {}", path.display(), beside.display());
        let folder = path.parent().unwrap();
        if folder != Path::new("src") {
            assert!(root().join(folder).join("mod.rs").is_file(), "{} has no mod.rs", folder.display());
        }
    }
}

#[test]
fn no_file_is_longer_than_a_reader_wants() {
    for (path, text) in sources(&["src", "tests", "bench"]) {
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "{path} has {lines} lines: split it by meaning");
    }
}

#[test]
fn every_module_begins_with_a_sentence() {
    for (path, text) in sources(&["src", "tests", "bench"]) {
        let documentation: Vec<&str> =
            text.lines().take_while(|line| line.starts_with("//!")).map(|line| line[3..].trim()).collect();
        let first = documentation.split(|line| line.is_empty()).next().unwrap_or_default().join(" ");
        assert!(first.len() > 10, "{path} does not say what it is for");
        assert!(first.ends_with(['.', ':', '?']), "{path} begins with no sentence: {first}");
    }
}

#[test]
fn retired_words_do_not_come_back() {
    let mut found = Vec::new();
    let docs = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().file_name());
    let docs = docs.map(|name| format!("docs/{}", name.to_string_lossy())).filter(|name| name.ends_with(".md"));
    let documents = docs.chain(["README.md".to_owned(), "CONTRIBUTING.md".to_owned()]);
    let documents = documents.map(|path| (path.clone(), fs::read_to_string(root().join(path)).unwrap()));
    for (path, text) in sources(&["src", "tests", "bench"]).into_iter().chain(documents) {
        if path == "tests/tidy.rs" {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            for (word, better) in RETIRED {
                let is_meant = STILL_USED.iter().any(|(file, text)| path == *file && line.contains(text));
                if line.contains(word) && !is_meant {
                    found.push(format!("{path}:{}: `{}`; better: {better}", number + 1, word.trim()));
                }
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn names_of_tests_are_sentences() {
    for (path, text) in sources(&["src", "tests"]) {
        let mut lines = text.lines().map(str::trim);
        while let Some(line) = lines.next() {
            if line != "#[test]" {
                continue;
            }
            let Some(name) = lines.by_ref().find_map(|line| line.strip_prefix("fn ")?.split('(').next()) else {
                continue;
            };
            let words = name.split('_').filter(|word| !word.is_empty()).count();
            assert!(words >= TEST_WORDS_MIN, "{path}: `{name}` does not say what holds");
        }
    }
}

#[test]
fn each_test_that_the_table_of_the_internet_names_is_there() {
    let table = fs::read_to_string(root().join("tests/internet.md")).unwrap();
    let names =
        table.lines().filter_map(|line| line.strip_prefix('|')).flat_map(|line| line.split('`').skip(1).step_by(2));
    let tests: Vec<(&str, &str)> = names.filter_map(|name| name.split_once("::")).collect();
    assert!(tests.len() > 40, "the table was read: {tests:?}");
    for (module, test) in tests {
        let path = format!("tests/end_to_end/{module}");
        let files = [format!("{path}.rs"), format!("{path}/mod.rs")];
        let text: String = files.iter().filter_map(|file| fs::read_to_string(root().join(file)).ok()).collect();
        assert!(text.contains(&format!("fn {test}(")), "{path} has no test {test}");
    }
}
