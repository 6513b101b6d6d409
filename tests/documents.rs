//! The documents: every link leads to a file and a heading that are there, and no page is left that none leads to.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The text of each document, by its path from the root.
fn documents() -> BTreeMap<PathBuf, String> {
    fn add(folder: &Path, found: &mut BTreeMap<PathBuf, String>) {
        for entry in fs::read_dir(root().join(folder)).unwrap().map(Result::unwrap) {
            let path = folder.join(entry.file_name());
            if entry.path().is_dir() {
                add(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.insert(path, fs::read_to_string(entry.path()).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    for folder in ["docs", "bench/record", "scripts", "tests"] {
        add(Path::new(folder), &mut found);
    }
    for name in ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        found.insert(name.into(), fs::read_to_string(root().join(name)).unwrap());
    }
    found
}

/// The lines outside of blocks of code, without code in the line.
fn prose(text: &str) -> String {
    let mut in_block = false;
    let mut prose = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            // Every other part is between backticks.
            line.split('`').step_by(2).for_each(|part| prose.push_str(part));
            prose.push('\n');
        }
    }
    prose
}

/// The targets of the links: what stands in `](…)`, and in `<http…>`.
fn links(text: &str) -> Vec<String> {
    let prose = prose(text);
    prose.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())).collect()
}

/// The anchors of the headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut in_block = false;
    let mut anchors = BTreeSet::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        }
        let heading = line.trim_start_matches('#');
        if in_block || heading.len() == line.len() || !heading.starts_with(' ') {
            continue;
        }
        let kept = |letter: &char| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_');
        let anchor: String = heading.trim().to_lowercase().chars().filter(kept).collect();
        anchors.insert(anchor.replace(' ', "-"));
    }
    anchors
}

#[test]
fn every_link_leads_to_a_file_and_a_heading_that_are_there() {
    let documents = documents();
    let mut wrong = Vec::new();
    for (path, text) in &documents {
        for link in links(text).iter().filter(|link| !link.starts_with("http")) {
            let (file, anchor) =
                link.split_once('#').map_or((link.as_str(), None), |(file, anchor)| (file, Some(anchor)));
            let target = if file.is_empty() {
                path.clone()
            } else {
                let mut target = path.parent().unwrap().to_owned();
                for part in Path::new(file).components() {
                    match part {
                        std::path::Component::ParentDir => assert!(target.pop(), "{}: {link}", path.display()),
                        std::path::Component::CurDir => {}
                        part => target.push(part),
                    }
                }
                target
            };
            let is_there = match anchor {
                None => root().join(&target).exists(),
                Some(anchor) => documents.get(&target).is_some_and(|text| anchors(text).contains(anchor)),
            };
            if !is_there {
                wrong.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_page_is_reached_from_the_readme() {
    let documents = documents();
    let (mut reached, mut next) = (BTreeSet::new(), vec![PathBuf::from("README.md")]);
    while let Some(path) = next.pop() {
        let Some(text) = documents.get(&path) else { continue };
        if !reached.insert(path.clone()) {
            continue;
        }
        for link in links(text) {
            let file = link.split('#').next().unwrap_or_default();
            let joined = root().join(path.parent().unwrap()).join(file);
            let Ok(full) = joined.canonicalize() else { continue };
            next.extend(full.strip_prefix(root().canonicalize().unwrap()).ok().map(Path::to_owned));
        }
    }
    let pages = documents.keys().filter(|path| path.starts_with("docs"));
    let lost: Vec<_> = pages.filter(|path| !reached.contains(*path)).collect();
    assert!(lost.is_empty(), "{lost:?}");
}

#[test]
fn the_readme_can_be_read_at_one_sitting() {
    let lines = documents()[Path::new("README.md")].lines().count();
    assert!(lines <= 150, "{lines} lines");
}
