//! The text of a key file. No error and no warning repeats anything of a line: it may be a key.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;

use super::{Grant, KeyHash, OwnerId, Owners, Writer};
use crate::api::rate::Rate;
use crate::limits;

/// Keys shorter than this are warned of: they can be guessed.
const LENGTH_ADVISED: usize = 16;

/// Bytes of the longest name.
const NAME_BYTES_MAX: usize = 64;

/// Why a key file can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFileError {
    /// The line, from 1; `None` for the file as a whole.
    pub line: Option<usize>,
    /// What is wrong, in words that repeat nothing of the file.
    pub wrong: String,
}

impl fmt::Display for KeyFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.wrong),
            None => f.write_str(&self.wrong),
        }
    }
}

impl std::error::Error for KeyFileError {}

/// A line of the file.
struct Line<'a> {
    hash: KeyHash,
    is_short: bool,
    name: Option<&'a str>,
    tables: Option<Box<[Box<str>]>>,
    rate: Option<Rate>,
}

/// The keys of a file by their hashes, and the numbers of lines with a short key.
pub(super) fn parse(
    text: &str,
    rate: Option<Rate>,
    owners: &Owners,
) -> Result<(HashMap<KeyHash, Grant>, Vec<usize>), KeyFileError> {
    let mut lines = Vec::new();
    let mut short = Vec::new();
    let (mut numbers, mut rates) = (HashMap::new(), HashMap::new());
    // The whole file is read before a name is added: a broken one changes nothing.
    for (number, text) in (1..).zip(text.lines()) {
        let at = |wrong: String| KeyFileError { line: Some(number), wrong };
        let Some(line) = parse_line(text).map_err(at)? else { continue };
        match numbers.entry(line.hash) {
            Entry::Vacant(vacant) => vacant.insert(number),
            Entry::Occupied(first) => return Err(at(format!("it is the key of line {} again", first.get()))),
        };
        if let Some(name) = line.name {
            let (first, of_first) = *rates.entry(name).or_insert((number, line.rate));
            if of_first != line.rate {
                return Err(at(format!("its name is that of line {first}, and its rate is another")));
            }
        }
        if lines.len() == limits::WRITE_KEYS_MAX {
            return Err(at(format!("there are more than {} keys", limits::WRITE_KEYS_MAX)));
        }
        short.extend(line.is_short.then_some(number));
        lines.push(line);
    }
    if lines.is_empty() {
        return Err(KeyFileError {
            line: None,
            wrong: "there is no key in it, so nobody could send events".to_owned(),
        });
    }
    let mut by_hash = HashMap::with_capacity(lines.len());
    for line in lines {
        let owner = owner_of(&line, owners).ok_or_else(|| KeyFileError {
            line: None,
            wrong: format!(
                "there were more than {} names and keys without a name since the start; restart the server",
                limits::KEY_OWNERS_MAX
            ),
        })?;
        let writer = Writer { owner, rate: line.rate.or(rate) };
        by_hash.insert(line.hash, Grant { writer, tables: line.tables });
    }
    Ok((by_hash, short))
}

/// A key with a name belongs to the name; one without belongs to itself.
fn owner_of(line: &Line<'_>, owners: &Owners) -> Option<OwnerId> {
    let identity = match line.name {
        Some(name) => blake3::derive_key("sluicegate 2026 the name of a write key", name.as_bytes()),
        None => blake3::derive_key("sluicegate 2026 a write key without a name", &line.hash.0),
    };
    owners.add(line.name.unwrap_or_default(), identity)
}

/// One line; `None` when there is nothing on it.
fn parse_line(text: &str) -> Result<Option<Line<'_>>, String> {
    let mut words = text.split_ascii_whitespace().take_while(|word| !word.starts_with('#'));
    let Some(key) = words.next() else { return Ok(None) };
    let (hash, is_short) = parse_key(key)?;
    let mut line = Line { hash, is_short, name: None, tables: None, rate: None };
    for word in words {
        let (attribute, value) = word.split_once('=').unwrap_or_default();
        let is_new = match attribute {
            "name" => line.name.replace(parse_name(value)?).is_none(),
            "tables" => line.tables.replace(parse_tables(value)?).is_none(),
            "rate" => line.rate.replace(value.parse()?).is_none(),
            _ => return Err("what follows a key is name=, tables= or rate=".to_owned()),
        };
        if !is_new {
            return Err(format!("{attribute}= comes twice"));
        }
    }
    Ok(Some(line))
}

/// The hash of a key, and whether the key is short.
fn parse_key(key: &str) -> Result<(KeyHash, bool), String> {
    if let Some(digits) = key.strip_prefix("sha256:") {
        let hash = unhex(digits).ok_or("sha256: is followed by 64 hexadecimal digits")?;
        return Ok((KeyHash(hash), false));
    }
    let is_visible = key.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_visible || key.len() > limits::WRITE_KEY_BYTES_MAX {
        return Err(format!("a key has 1 to {} visible ASCII characters", limits::WRITE_KEY_BYTES_MAX));
    }
    Ok((KeyHash::of(key.as_bytes()), key.len() < LENGTH_ADVISED))
}

fn parse_name(name: &str) -> Result<&str, String> {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    if is_plain && (1..=NAME_BYTES_MAX).contains(&name.len()) {
        return Ok(name);
    }
    Err(format!("a name has 1 to {NAME_BYTES_MAX} letters, digits, `_`, `-` and `.`"))
}

fn parse_tables(tables: &str) -> Result<Box<[Box<str>]>, String> {
    let is_name = |table: &str| {
        !table.is_empty() && table.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
    };
    let tables: Box<[Box<str>]> = tables.split(',').map(Into::into).collect();
    if tables.iter().all(|table| is_name(table)) {
        return Ok(tables);
    }
    Err("tables= is followed by names of tables with commas between them".to_owned())
}

fn unhex(digits: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if digits.len() != 64 || !digits.is_ascii() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        let digit = |digit: &u8| char::from(*digit).to_digit(16);
        let [high, low] = pair else { return None };
        *byte = (digit(high)? << 4 | digit(low)?) as u8;
    }
    Some(bytes)
}
