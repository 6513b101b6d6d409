//! Arrays, maps and tuples: values with values inside.
//!
//! The number of elements stands in front of them, so a byte is kept for it and set at the end. The
//! elements of a tuple that comes as an object are written as they come, and put in order at its end.
//!
//! All functions here recurse by the levels of the type, at most
//! [`TYPE_DEPTH_MAX`](crate::rowbinary::TYPE_DEPTH_MAX).

use std::ops::Range;

use super::json::Paths;
use super::text::plain_string;
use super::{JsonToken, ValueError, read, write, write_scalar};
use crate::limits::MAPPED_LEVELS_MAX;
use crate::ndjson::escape;
use crate::ndjson::skip::{skip_scalar, skip_space, skip_string, skip_value};
use crate::rowbinary::{RowBuffer, TYPE_DEPTH_MAX};
use crate::schema::{Cell, TupleElements};

/// The levels around any value inside a column, at most: those of its type, the line's object, and those of a
/// mapped path.
const LEVELS_AROUND_MAX: usize = TYPE_DEPTH_MAX + 1 + MAPPED_LEVELS_MAX;

/// What [`write`] needs beside the row: each path of the encoder decodes texts in its own way.
pub(crate) trait Workspace {
    /// The text of a string whose grammar has been checked, given with its quotes; `None` if it has an
    /// unpaired surrogate.
    fn decode<'a>(&'a mut self, raw: &'a [u8]) -> Option<&'a [u8]>;

    /// The space in which tuples are put in order.
    fn tuples(&mut self) -> &mut Tuples;

    /// The space in which the paths of JSON values are compared.
    fn paths(&mut self) -> &mut Paths;
}

/// The space in which tuples are put in order. It is kept between lines.
#[derive(Debug, Default)]
pub(crate) struct Tuples {
    /// The range of each element's value, counted from the start of the tuple; a stack, because an element
    /// may be a tuple again.
    ranges: Vec<Option<Range<usize>>>,
    /// The values of one tuple as they came.
    values: Vec<u8>,
}

/// The workspace of the fast path, which allocates only to grow.
#[derive(Debug, Default)]
pub(crate) struct InPlace {
    text: Vec<u8>,
    tuples: Tuples,
    paths: Paths,
}

impl Workspace for InPlace {
    fn decode<'a>(&'a mut self, raw: &'a [u8]) -> Option<&'a [u8]> {
        if let Some((start, length, _)) = plain_string(raw, 0) {
            return raw.get(start..start + length);
        }
        decode_escaped(raw, &mut self.text)?;
        Some(&self.text)
    }

    fn tuples(&mut self) -> &mut Tuples {
        &mut self.tuples
    }

    fn paths(&mut self) -> &mut Paths {
        &mut self.paths
    }
}

/// [`escape::decode`], which is made part of the loop over a line.
#[inline(never)]
fn decode_escaped(raw: &[u8], text: &mut Vec<u8>) -> Option<usize> {
    escape::decode(raw, 0, text)
}

/// The values of an array whose grammar has been checked.
pub(super) struct Elements<'a> {
    body: &'a [u8],
    /// The offset of the opening bracket, or of what follows the last value.
    at: usize,
}

impl<'a> Elements<'a> {
    pub(super) fn of(raw: &'a [u8]) -> Self {
        Self { body: raw, at: 0 }
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        // A bracket or a comma; the closing bracket of an empty array is no value.
        let value = skip_space(self.body, skip_space(self.body, self.at) + 1);
        self.at = skip_value(self.body, value, 0).ok()?;
        self.body.get(value..self.at)
    }
}

/// The members of an object whose grammar has been checked: keys, with their quotes, and values.
pub(super) struct Members<'a> {
    body: &'a [u8],
    /// The offset of the opening brace, or of what follows the last value.
    at: usize,
}

impl<'a> Members<'a> {
    pub(super) fn of(raw: &'a [u8]) -> Self {
        Self { body: raw, at: 0 }
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let key = skip_space(self.body, skip_space(self.body, self.at) + 1);
        let key_end = skip_string(self.body, key)?;
        let value = skip_space(self.body, skip_space(self.body, key_end) + 1);
        self.at = skip_value(self.body, value, 0).ok()?;
        Some((self.body.get(key..key_end)?, self.body.get(value..self.at)?))
    }
}

/// Writes a value as it is in the line.
pub(super) fn write_raw(
    cell: &Cell,
    raw: &[u8],
    workspace: &mut impl Workspace,
    out: &mut RowBuffer,
) -> Result<(), ValueError> {
    match raw.first() {
        Some(b'"') => write_text(cell, workspace.decode(raw).ok_or(ValueError::Surrogate)?, out),
        Some(b'{' | b'[') => write(cell, JsonToken::Nested(raw), workspace, out),
        _ => write(cell, JsonToken::of_bare(raw), workspace, out),
    }
}

fn write_text(cell: &Cell, text: &[u8], out: &mut RowBuffer) -> Result<(), ValueError> {
    if cell.nullable {
        out.put([0]);
    }
    write_scalar(&cell.column_type, JsonToken::Text(text), out)
}

pub(super) fn write_array(
    element: &Cell,
    raw: &[u8],
    workspace: &mut impl Workspace,
    out: &mut RowBuffer,
) -> Result<(), ValueError> {
    if raw.first() != Some(&b'[') {
        return Err(ValueError::Mismatch);
    }
    let (place, mut count) = (out.len(), 0);
    out.put([0]);
    for value in Elements::of(raw) {
        write_raw(element, value, workspace, out)?;
        count += 1;
    }
    out.set_length(place, count);
    Ok(())
}

/// Writes an object as a map. Its keys are texts of the key's type; a key that comes twice is stored twice,
/// as in ClickHouse.
pub(super) fn write_map(
    [key, value]: &[Cell; 2],
    raw: &[u8],
    workspace: &mut impl Workspace,
    out: &mut RowBuffer,
) -> Result<(), ValueError> {
    if raw.first() != Some(&b'{') {
        return Err(ValueError::Mismatch);
    }
    let (place, mut count) = (out.len(), 0);
    out.put([0]);
    for (raw_key, raw_value) in Members::of(raw) {
        write_text(key, workspace.decode(raw_key).ok_or(ValueError::Surrogate)?, out)?;
        write_raw(value, raw_value, workspace, out)?;
        count += 1;
    }
    out.set_length(place, count);
    Ok(())
}

/// Writes an array of all elements; or an object, if the elements have names: unknown keys are skipped,
/// and a missing element is what null is.
pub(super) fn write_tuple(
    elements: &TupleElements,
    raw: &[u8],
    workspace: &mut impl Workspace,
    out: &mut RowBuffer,
) -> Result<(), ValueError> {
    if raw.first() == Some(&b'{') {
        if !elements.are_named() {
            return Err(ValueError::Mismatch);
        }
        let base = workspace.tuples().ranges.len();
        let done = write_object(elements, base, raw, workspace, out);
        workspace.tuples().ranges.truncate(base);
        return done;
    }
    let mut values = Elements::of(raw);
    for cell in &elements.cells {
        write_raw(cell, values.next().ok_or(ValueError::Mismatch)?, workspace, out)?;
    }
    if values.next().is_some() { Err(ValueError::Mismatch) } else { Ok(()) }
}

/// Writes an object as a tuple. The ranges of its elements are on the stack from `base` on.
fn write_object(
    elements: &TupleElements,
    base: usize,
    raw: &[u8],
    workspace: &mut impl Workspace,
    out: &mut RowBuffer,
) -> Result<(), ValueError> {
    let start = out.len();
    let ranges = &mut workspace.tuples().ranges;
    ranges.resize(base + elements.cells.len(), None);
    let mut in_order = 0;
    for (raw_key, raw_value) in Members::of(raw) {
        // A key with an unpaired surrogate is no text, so no element has it.
        let Some(index) = workspace.decode(raw_key).and_then(|key| elements.index(key)) else { continue };
        let Some(cell) = elements.cells.get(index) else { continue };
        let from = out.len() - start;
        write_raw(cell, raw_value, workspace, out)?;
        let Some(range) = workspace.tuples().ranges.get_mut(base + index) else { continue };
        if range.replace(from..out.len() - start).is_some() {
            return Err(ValueError::Duplicate);
        }
        in_order += usize::from(index == in_order);
    }
    if in_order < elements.cells.len() {
        put_in_order(elements, base, start, workspace.tuples(), out);
    }
    Ok(())
}

fn put_in_order(elements: &TupleElements, base: usize, start: usize, tuples: &mut Tuples, out: &mut RowBuffer) {
    tuples.values.clear();
    tuples.values.extend_from_slice(out.written().get(start..).unwrap_or_default());
    out.truncate(start);
    for (cell, range) in elements.cells.iter().zip(tuples.ranges.iter().skip(base)) {
        let value = range.as_ref().and_then(|range| tuples.values.get(range.clone()));
        out.put_slice(value.unwrap_or(&cell.null));
    }
}

/// Reads a value inside of another one.
fn read_inside(cell: &Cell, body: &[u8], at: usize, out: &mut RowBuffer) -> Option<usize> {
    if body.get(at..)?.starts_with(b"null") {
        out.put_slice(&cell.null);
        return Some(at + 4);
    }
    read(cell, body, at, out)
}

/// What follows a value of an array or object that ends with `close`: the offset of the next one, or that
/// behind the end.
#[inline]
fn next_value(body: &[u8], at: usize, close: u8) -> Option<Result<usize, usize>> {
    let at = skip_space(body, at);
    match *body.get(at)? {
        b',' => Some(Ok(skip_space(body, at + 1))),
        byte if byte == close => Some(Err(at + 1)),
        _ => None,
    }
}

/// The first value behind the opening byte at `at`; the end if there is none.
#[inline]
fn first_value(body: &[u8], at: usize, open: u8, close: u8) -> Option<Result<usize, usize>> {
    if body.get(at) != Some(&open) {
        return None;
    }
    let at = skip_space(body, at + 1);
    Some(if body.get(at) == Some(&close) { Err(at + 1) } else { Ok(at) })
}

/// The bytes of a plain key, and the offset of its value.
#[inline]
fn read_key(body: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let (start, length, end) = plain_string(body, at)?;
    let colon = skip_space(body, end);
    if body.get(colon) != Some(&b':') {
        return None;
    }
    Some((body.get(start..start + length)?, skip_space(body, colon + 1)))
}

pub(super) fn read_array(element: &Cell, body: &[u8], at: usize, out: &mut RowBuffer) -> Option<usize> {
    let (place, mut count) = (out.len(), 0);
    out.put([0]);
    let mut next = first_value(body, at, b'[', b']')?;
    while let Ok(value) = next {
        let end = read_inside(element, body, value, out)?;
        count += 1;
        next = next_value(body, end, b']')?;
    }
    out.set_length(place, count);
    next.err()
}

pub(super) fn read_map([key, value]: &[Cell; 2], body: &[u8], at: usize, out: &mut RowBuffer) -> Option<usize> {
    let (place, mut count) = (out.len(), 0);
    out.put([0]);
    let mut next = first_value(body, at, b'{', b'}')?;
    while let Ok(entry) = next {
        let (text, value_at) = read_key(body, entry)?;
        write_text(key, text, out).ok()?;
        let end = read_inside(value, body, value_at, out)?;
        count += 1;
        next = next_value(body, end, b'}')?;
    }
    out.set_length(place, count);
    next.err()
}

/// Reads an object with its known keys in the order of the elements, some of which may be missing; or an
/// array.
pub(super) fn read_tuple(elements: &TupleElements, body: &[u8], at: usize, out: &mut RowBuffer) -> Option<usize> {
    if body.get(at) == Some(&b'[') {
        return read_tuple_array(elements, body, at, out);
    }
    if !elements.are_named() {
        return None;
    }
    let mut expected = 0;
    let mut next = first_value(body, at, b'{', b'}')?;
    while let Ok(member) = next {
        let (key, value) = read_key(body, member)?;
        let is_expected = elements.name(expected).is_some_and(|name| name.as_bytes() == key);
        let end = match if is_expected { Some(expected) } else { elements.index(key) } {
            Some(index) if index >= expected => {
                put_missing(elements, expected..index, out);
                expected = index + 1;
                read_inside(elements.cells.get(index)?, body, value, out)?
            }
            Some(_) => return None,
            None => match skip_scalar(body, value) {
                Some(end) => end,
                None => skip_value(body, value, LEVELS_AROUND_MAX).ok()?,
            },
        };
        next = next_value(body, end, b'}')?;
    }
    put_missing(elements, expected..elements.cells.len(), out);
    next.err()
}

fn put_missing(elements: &TupleElements, indexes: Range<usize>, out: &mut RowBuffer) {
    for cell in elements.cells.get(indexes).unwrap_or_default() {
        out.put_slice(&cell.null);
    }
}

fn read_tuple_array(elements: &TupleElements, body: &[u8], at: usize, out: &mut RowBuffer) -> Option<usize> {
    let mut next = first_value(body, at, b'[', b']')?;
    for cell in &elements.cells {
        let end = read_inside(cell, body, next.ok()?, out)?;
        next = next_value(body, end, b']')?;
    }
    next.err()
}
