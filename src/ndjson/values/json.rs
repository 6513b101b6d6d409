//! JSON values. ClickHouse parses them itself: a row has their text
//! (`input_format_binary_read_json_as_string`). What it would refuse is refused here, because a refusal there
//! comes after the reply.
//!
//! It refuses, in one version or another: anything but an object; an integer outside of 64 bits and a number
//! that overflows a Float64; an unpaired surrogate, in keys too; a key that comes twice in an object; and two
//! values with one path, which `{"a":{"b":1},"a.b":2}` has as well. Each object inside of an array has paths
//! of its own. A value of a path with a type has to be one of that type.

use std::hash::{DefaultHasher, Hasher};

use super::nested::Workspace;
use super::{ValueError, json_path};
use crate::ndjson::skip::{skip_scalar, skip_space, skip_string, skip_value};
use crate::rowbinary::RowBuffer;
use crate::schema::JsonPaths;

/// The space in which the paths of a value are compared. It is kept between lines.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    /// The open objects and arrays.
    levels: Vec<Level>,
    /// Hashes of keys with their objects, and of paths.
    seen: Vec<u64>,
    /// Objects so far.
    objects: u64,
}

/// An open object, or an array.
#[derive(Debug)]
enum Level {
    Array,
    Object {
        /// The number of the object in the value.
        number: u64,
        /// The path of the object, behind the number of the one that its paths begin in.
        path: DefaultHasher,
        /// True if the object's path is not empty.
        is_inside: bool,
    },
}

/// Writes an object as its text. `typed` are the paths that have types of their own.
pub(super) fn write(
    raw: &[u8],
    typed: Option<&JsonPaths>,
    workspace: &mut impl Workspace,
    out: &mut RowBuffer,
) -> Result<(), ValueError> {
    if raw.first() != Some(&b'{') {
        return Err(ValueError::Mismatch);
    }
    let mut paths = std::mem::take(workspace.paths());
    let checked = paths.check(raw, typed, workspace, out);
    paths.levels.clear();
    paths.seen.clear();
    *workspace.paths() = paths;
    checked?;
    out.put_string(raw);
    Ok(())
}

impl Paths {
    /// Checks an object whose grammar and depth have been checked.
    fn check(
        &mut self,
        raw: &[u8],
        typed: Option<&JsonPaths>,
        workspace: &mut impl Workspace,
        out: &mut RowBuffer,
    ) -> Result<(), ValueError> {
        self.objects = 0;
        let (mut at, mut path) = (0, None);
        loop {
            // A value, whose path is `path` unless it stands in an array.
            let opened = match raw.get(at) {
                Some(b'{') => {
                    self.open_object(path.take());
                    true
                }
                first => {
                    self.seen.extend(path.take().map(|path: DefaultHasher| path.finish()));
                    if first == Some(&b'[') {
                        self.levels.push(Level::Array);
                    }
                    first == Some(&b'[')
                }
            };
            if opened {
                at = skip_space(raw, at + 1);
            } else {
                let end = skip_scalar(raw, at).ok_or(ValueError::Mismatch)?;
                check_scalar(raw.get(at..end).unwrap_or_default(), workspace)?;
                at = skip_space(raw, end);
            }
            // What follows: ends of levels, and a comma.
            loop {
                match raw.get(at) {
                    Some(b'}' | b']') => {
                        self.levels.pop();
                        at = skip_space(raw, at + 1);
                    }
                    Some(b',') => at = skip_space(raw, at + 1),
                    _ => break,
                }
            }
            match self.levels.last() {
                None => break,
                Some(Level::Array) => {}
                Some(Level::Object { number, path: outer, is_inside }) => {
                    let key_end = skip_string(raw, at).ok_or(ValueError::Mismatch)?;
                    let key =
                        workspace.decode(raw.get(at..key_end).unwrap_or_default()).ok_or(ValueError::Surrogate)?;
                    let mut alone = DefaultHasher::new();
                    alone.write_u64(!*number);
                    alone.write(key);
                    self.seen.push(alone.finish());
                    let mut inner = outer.clone();
                    if *is_inside {
                        inner.write(b".");
                    }
                    inner.write(key);
                    at = skip_space(raw, skip_space(raw, key_end) + 1);
                    if let Some((typed, cell)) = typed.and_then(|typed| Some((typed, typed.get(inner.finish())?))) {
                        let end = skip_value(raw, at, 0).map_err(|_| ValueError::Mismatch)?;
                        json_path::check(typed.rules(), cell, raw.get(at..end).unwrap_or_default(), workspace, out)?;
                    }
                    path = Some(inner);
                }
            }
        }
        self.seen.sort_unstable();
        let mut pairs = self.seen.iter().zip(self.seen.iter().skip(1));
        if pairs.any(|(one, next)| one == next) { Err(ValueError::Duplicate) } else { Ok(()) }
    }

    fn open_object(&mut self, path: Option<DefaultHasher>) {
        let number = self.objects;
        self.objects += 1;
        let is_inside = path.is_some();
        let path = path.unwrap_or_else(|| JsonPaths::hasher(number));
        self.levels.push(Level::Object { number, path, is_inside });
    }
}

fn check_scalar(raw: &[u8], workspace: &mut impl Workspace) -> Result<(), ValueError> {
    match raw.first() {
        Some(b'"') => workspace.decode(raw).map(drop).ok_or(ValueError::Surrogate),
        Some(b'-' | b'0'..=b'9') => {
            let text = std::str::from_utf8(raw).map_err(|_| ValueError::Mismatch)?;
            let is_integer = !text.contains(['.', 'e', 'E']);
            let fits = match is_integer {
                true => text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok(),
                false => text.parse::<f64>().is_ok_and(f64::is_finite),
            };
            if fits { Ok(()) } else { Err(ValueError::OutOfRange) }
        }
        _ => Ok(()),
    }
}
