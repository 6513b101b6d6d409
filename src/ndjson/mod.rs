//! The row encoder: NDJSON lines to RowBinary rows.
//!
//! A line takes one of two paths. `walk` is the fast path: it guesses keys, reads values in place, and
//! gives up on anything unexpected. `general` is the slow path for all other
//! lines: it parses with `sonic-rs`, and it alone rejects lines. Both paths give the same bytes for
//! every line that the fast path accepts.
//!
//! Files in reading order: `lines`, `elements` (bodies that are one array), `walk`, `guessed` (the loop over keys that
//! were guessed), `order` and `step` (the guess of the next key), `known` (keys and their fields), `row`, `found`,
//! `missing` and `format` (values in the table's order), `values` (one file per family of types), `general`, `keys`
//! (rejections because of keys), `repair` (invalid text), `skip`, `scan` and `escape` (the grammar of JSON), `utf8`,
//! `siblings` (arrays of Nested columns), `identify`, `report`.
//!
//! A [mapping](crate::schema::Mapping) says which column gets what. `mapped` is its part of the fast path, and
//! `server_values` writes what no line says. `field_counts` counts fields that no column takes.
//!
//! # What a value means
//!
//! A value means what it means to ClickHouse in the format `JSONEachRow` with the settings
//! `input_format_skip_unknown_fields=1`, `date_time_input_format='best_effort'` and
//! `input_format_null_as_default=1`, with these exceptions. The tests `generated` compare both, and each of
//! their reasons to differ is one of these.
//!
//! - A value that ClickHouse would wrap, clamp or truncate is rejected as `out_of_range`: 300 in
//!   UInt8, numbers that overflow a float, dates and times outside the range of their type, dates
//!   that don't exist, hours above 23 (except 24:00:00, the end of a day), minutes above 59, seconds
//!   above 60 (60 is the first second of the next minute), offsets above 23:59, Unix seconds in a Date.
//! - A bare number in a DateTime or DateTime64 column is Unix time in the unit that its absolute value
//!   says: below 10^11 seconds, below 10^14 milliseconds, below 10^17 microseconds, else nanoseconds.
//!   A fraction is a fraction of that unit. A mapping may say the unit. ClickHouse takes seconds, or ticks of a DateTime64,
//!   depending on its version.
//! - A number in a Decimal column fits by its value, however many digits it is written with. Digits behind
//!   the last one of the type are cut, as in ClickHouse; a text that only begins like a number (`1.2.3`,
//!   `1e`, `.`) is a `type_mismatch`. A minute or second above 59 in a Time or Time64 column is not carried
//!   over. A number in a Time64 column is ticks, as in ClickHouse with every version.
//! - Escapes are decoded in every string: in quoted numbers, which ClickHouse refuses then, and in the keys
//!   of a Tuple, which it does not find then.
//! - A number with an integer value is an integer however it is written: `1.0`, `1e3`. ClickHouse refuses
//!   such a number. (In a Variant it is none, as in ClickHouse; in an array there it is.)
//! - A Tuple with names may also be an array of all its elements, which ClickHouse refuses. An array for a
//!   Tuple has all elements: ClickHouse takes `[]` for a Tuple of one.
//! - A Decimal and a time in a Variant take what they take elsewhere: ClickHouse looks for another type for a
//!   quoted decimal, does not find one for the decimals in a Map, and clamps a time to the first type of times.
//! - A Variant takes a value as ClickHouse 26.7 does with every version: 26.9 takes 0 and 1 for numbers
//!   where there is a Bool too.
//! - Which type a value inside of a JSON gets is left to ClickHouse; it depends on the rows before it in the
//!   INSERT. A value of a path that has a type of its own (`JSON(a UInt8)`) is accepted if ClickHouse takes it
//!   there, where it takes less than for a column (no empty text for a number, no number for a Date), and if a
//!   column of the type takes it too, so that nothing is cut. A number for a DateTime64 is refused: ClickHouse
//!   takes it for ticks there (26.7), whatever its magnitude.
//! - The type of a Dynamic value depends on that value alone, as `values/dynamic` says. ClickHouse makes a
//!   Tuple of an object, which is a JSON here, takes more texts for times, and takes `true` beside numbers in
//!   an array for 1.
//! - The arrays of a Nested column (`n.a`, `n.b`) that have different numbers of elements in a row are a
//!   `type_mismatch`; ClickHouse refuses the whole INSERT.
//! - A key that comes twice in one object of a JSON value is a `duplicate_field`, as in ClickHouse 25.8; later
//!   versions take some. An integer of more than 64 bits is `out_of_range`; 26.9 makes a text of it.
//! - A line must be valid JSON, including the inside of values, and values that are skipped or stored as
//!   text: no control bytes and no unknown escapes in strings; no leading zeros, plus signs or `inf` in
//!   numbers; no trailing commas, and no keys without quotes. An object must stand on one line, unless it is
//!   an element of the array that the whole body is: then its line feeds between values count as spaces.
//! - Unpaired surrogates are rejected in strings that are values of columns (ClickHouse stores an
//!   unpaired low surrogate as invalid UTF-8), and so is a line that is not UTF-8. Unpaired surrogates are
//!   accepted in skipped values, in keys that no column has, and inside an object or array that is
//!   stored as its text in a String. With [`InvalidText::Replace`] all invalid text becomes U+FFFD, wherever it is.
//! - Keys match column names as in ClickHouse since 26.5, with every version: exactly, else without
//!   regard to the case of ASCII letters. A key that then matches several columns, and two keys of one
//!   column, are a `duplicate_field`.
//! - An object with keys of which none matches a column is rejected as `no_known_field`, unless a column takes
//!   the line whole or collects what no column takes; `{}` is a row of defaults.
//! - `null` in an Enum that is not Nullable is the default, as is an element of a Tuple that is missing; in
//!   ClickHouse it is an error, or a 0 that the type lacks.
//! - The best-effort formats of times are the grammar in `values/moment`, which is that of ClickHouse
//!   26.7, except that a text without a year, whose meaning would depend on the day, a text that gives
//!   a part twice (`2021-09-24 5 7`), and one with a letter between year and month are a
//!   `type_mismatch`. Texts of 16 and 19 digits are microseconds and nanoseconds with every version.
//! - A number in a Date32 column has the range of text, 1900 to 2299. A DateTime64 has the same range on
//!   the clock of its zone, with every version. A number of an IPv4 address has at most three digits,
//!   and no leading zero inside an IPv6 address.
//! - The fields `ip` and `server_time`, in any case, are skipped, with any value, if the server fills
//!   the columns of these names. A mapping may take these columns from a field.

mod address_form;
mod body_lines;
mod elements;
mod escape;
mod field_counts;
mod format;
mod found;
mod general;
mod guessed;
mod hex;
mod identify;
mod keys;
mod known;
mod lines;
mod mapped;
mod missing;
mod options;
mod order;
mod repair;
mod report;
mod request;
mod row;
mod scan;
mod server_values;
mod siblings;
mod skip;
mod step;
mod utf8;
mod values;
mod walk;

use std::borrow::Cow;
use std::sync::Arc;

pub use address_form::{AddressForm, AddressHash, AddressKey};
pub use body_lines::BodyLines;
pub use field_counts::{Counts, FieldCounts, Kinds, UnknownField};
pub use repair::InvalidText;
pub use report::{LineCode, LineError, RejectedByCode, Report};
pub use request::{EncodeLimits, EncodeRefusal, Origin, RequestValues};
pub use server_values::check_constants;

use self::elements::{Layout, begin_array};
use self::field_counts::FieldCounter;
use self::general::Rejection;
use self::identify::Identifier;
use self::known::KnownKeys;
use self::lines::{Lines, end_of_line, slice_end, trim_end};
use self::mapped::Mapped;
use self::order::KeyOrder;
use self::row::{RowBuilder, ServerCells};
use self::server_values::ServerInputs;
use self::siblings::Siblings;
use self::utf8::Utf8Window;
use self::values::nested::InPlace;
use self::walk::{Bounds, Inside, Walk};
use crate::batch::Batch;
use crate::limits;
use crate::quarantine::RejectedLine;
use crate::schema::{Plan, RequestInput};

/// How far the encoding of a body has come that is encoded in slices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    layout: Layout,
    /// The offset of the next slice.
    at: usize,
    /// Lines of the slices so far, blank ones included; or elements.
    lines: u32,
    accepted: u32,
    rejected: u32,
    /// Bytes of encoded rows and rejected lines.
    encoded: usize,
}

/// The encoder from bodies to batches. Each worker owns one, because it learns keys.
#[derive(Debug)]
pub struct RowEncoder {
    plan: Arc<Plan>,
    limits: EncodeLimits,
    invalid_text: InvalidText,
    known: KnownKeys,
    order: KeyOrder,
    window: Utf8Window,
    builder: RowBuilder,
    server: ServerCells,
    mapped: Mapped,
    counter: FieldCounter,
    /// What the columns get of the head of the request that is encoded.
    request: Option<Arc<RequestValues>>,
    /// What the columns get of a request's head.
    inputs: Arc<[RequestInput]>,
    /// A string value with its escapes decoded.
    scratch: Vec<u8>,
    /// For values inside of values.
    workspace: InPlace,
    /// An element of an array without its line feeds.
    copy: Vec<u8>,
    /// The column whose values identify events (`--dedup-field`).
    identifying: Option<String>,
    /// What is stored of a client's address.
    address_form: AddressForm,
    /// Checks the arrays of Nested columns; `None` for a table without.
    siblings: Option<Siblings>,
    /// The key of the columns whose addresses are hashed in another form than that.
    address_key: Option<AddressKey>,
    /// Computes the identities; `None` without such a column, or while the table lacks it.
    identifier: Option<Identifier>,
}

impl RowEncoder {
    /// An encoder that has learned no key.
    pub fn new(plan: Arc<Plan>, limits: EncodeLimits) -> Self {
        Self {
            known: KnownKeys::new(plan.paths().targets(), known::PLACES_OF_OTHERS),
            order: KeyOrder::new(plan.columns().len(), format::of_fields(&plan)),
            window: Utf8Window::default(),
            builder: RowBuilder::new(&plan),
            server: ServerCells::default(),
            mapped: Mapped::new(&plan),
            counter: FieldCounter::default(),
            request: None,
            inputs: Arc::default(),
            scratch: Vec::new(),
            workspace: InPlace::default(),
            copy: Vec::new(),
            identifying: None,
            address_form: AddressForm::default(),
            address_key: None,
            identifier: None,
            siblings: Siblings::new(&plan),
            plan,
            limits,
            invalid_text: InvalidText::default(),
        }
    }

    /// Encodes a complete body: appends rows to `batch.rows` and rejected lines to `batch.rejected`,
    /// and adds the numbers of both to `report`. A body is one object a line, or one array of objects.
    ///
    /// # Errors
    ///
    /// The whole request is refused. `batch` is unchanged; `report` contains the lines rejected until
    /// then.
    pub fn encode(
        &mut self,
        body: &[u8],
        origin: &Origin,
        batch: &mut Batch,
        report: &mut Report,
    ) -> Result<(), EncodeRefusal> {
        self.encode_with::<true>(body, usize::MAX, &mut Progress::default(), origin, batch, report).map(drop)
    }

    /// Encodes the next slice of a body: whole lines, or elements, of about `bytes` bytes. Returns true after
    /// the last one. The slices of a body give the same rows, numbers and refusals as the whole body.
    ///
    /// # Errors
    ///
    /// The whole request is refused. `batch` is as it was before this slice: the caller rolls back what
    /// the slices before have appended.
    pub fn encode_slice(
        &mut self,
        body: &[u8],
        bytes: usize,
        progress: &mut Progress,
        origin: &Origin,
        batch: &mut Batch,
        report: &mut Report,
    ) -> Result<bool, EncodeRefusal> {
        self.encode_with::<true>(body, bytes, progress, origin, batch, report)
    }

    /// Encodes a complete body on the slow path alone: the naive twin of [`RowEncoder::encode`] for
    /// tests and benchmarks.
    ///
    /// # Errors
    ///
    /// As [`RowEncoder::encode`].
    pub fn encode_generally(
        &mut self,
        body: &[u8],
        origin: &Origin,
        batch: &mut Batch,
        report: &mut Report,
    ) -> Result<(), EncodeRefusal> {
        self.encode_with::<false>(body, usize::MAX, &mut Progress::default(), origin, batch, report).map(drop)
    }

    fn encode_with<const FAST: bool>(
        &mut self,
        body: &[u8],
        bytes: usize,
        progress: &mut Progress,
        origin: &Origin,
        batch: &mut Batch,
        report: &mut Report,
    ) -> Result<bool, EncodeRefusal> {
        let (form, key, values) = (&self.address_form, self.address_key.as_ref(), self.request.as_deref());
        self.server.encode(&self.plan, &ServerInputs { origin, form, key, values });
        let (mark, len_before) = (batch.mark(), batch.len());
        if progress.layout == Layout::Unknown {
            (progress.layout, progress.at) = match begin_array(body) {
                Some(at) => (Layout::Elements, at),
                None => (Layout::Lines, 0),
            };
        }
        let done = if progress.layout == Layout::Elements {
            self.encode_elements::<FAST>(body, bytes, progress, origin, batch, report)
        } else {
            let end = slice_end(body, progress.at, bytes);
            let slice = body.get(progress.at..end).unwrap_or_default();
            progress.at = end;
            self.encode_lines::<FAST>(slice, progress, origin, batch, report).map(|()| end == body.len())
        };
        if done.is_ok() {
            self.builder.move_rows(&mut batch.rows.bytes);
            progress.encoded += batch.len() - len_before;
        } else {
            batch.roll_back(mark);
        }
        self.builder.clear();
        self.counter.end_body(self.plan.fields());
        self.window.clear();
        debug_assert!(done.is_ok() || batch.mark() == mark);
        done
    }

    fn encode_lines<const FAST: bool>(
        &mut self,
        body: &[u8],
        progress: &mut Progress,
        origin: &Origin,
        batch: &mut Batch,
        report: &mut Report,
    ) -> Result<(), EncodeRefusal> {
        let (len_before, encoded_before) = (batch.len(), progress.encoded);
        let (mut accepted, mut rejected) = (progress.accepted, progress.rejected);
        let mut lines = Lines::new(body, progress.lines);
        loop {
            if FAST && self.server.unfit.is_none() {
                let row_start = self.builder.rows.len();
                // The bounds end a run where a check or a copy is due, so that it comes after the same line.
                let encoded = encoded_before + batch.len() - len_before;
                let bounds = Bounds {
                    lines: if self.identifier.is_some() { 1 } else { u32::MAX }
                        .min(self.limits.events_max - accepted - rejected),
                    bytes: row::FLUSH_BYTES.min((self.limits.encoded_bytes_max - encoded).saturating_add(1)),
                    line_bytes: self.limits.line_bytes_max,
                };
                let walked = self.walk().lines(body, &mut lines, bounds);
                if walked > 0 {
                    accepted += walked;
                    self.after_line(row_start, len_before, encoded_before, batch)?;
                    continue;
                }
            }
            let Some((start, number)) = lines.begin(body) else { break };
            let row_start = self.builder.rows.len();
            if accepted + rejected >= self.limits.events_max {
                return Err(EncodeRefusal::TooManyEvents);
            }
            {
                let end = end_of_line(body, start);
                lines.end(end);
                let line = body.get(start..end).unwrap_or_default();
                match self.encode_line(line) {
                    Ok(()) => accepted += 1,
                    Err(rejection) => {
                        rejected += 1;
                        self.reject(rejection, number, line, origin, batch, report);
                    }
                }
                if rejected > limits::BAD_LINES_MAX {
                    return Err(EncodeRefusal::TooManyBadLines);
                }
            }
            self.after_line(row_start, len_before, encoded_before, batch)?;
        }
        let more = accepted - progress.accepted;
        batch.rows.count += more;
        report.accepted += more;
        *progress = Progress { lines: lines.before_next(), accepted, rejected, ..*progress };
        Ok(())
    }

    /// What is done after each line, whose row begins at `row_start` if it has one: `len_before` is the length
    /// of the batch before this slice, and `encoded_before` what the slices before have added.
    #[inline]
    fn after_line(
        &mut self,
        row_start: usize,
        len_before: usize,
        encoded_before: usize,
        batch: &mut Batch,
    ) -> Result<(), EncodeRefusal> {
        self.counter.end_line();
        if self.identifier.is_some() {
            self.identify(row_start, batch);
        }
        let encoded = encoded_before + self.builder.rows.len() + batch.len() - len_before;
        if encoded > self.limits.encoded_bytes_max {
            return Err(EncodeRefusal::EncodedTooLarge);
        }
        if self.builder.rows.len() >= row::FLUSH_BYTES {
            self.builder.move_rows(&mut batch.rows.bytes);
        }
        Ok(())
    }

    /// Adds the identity of the row at `start` to the batch. Does nothing if the line was rejected or
    /// the event has no identity.
    fn identify(&self, start: usize, batch: &mut Batch) {
        let row = self.builder.rows.written().get(start..).unwrap_or_default();
        if let Some(id) = self.identifier.as_ref().and_then(|identifier| identifier.id(row)) {
            let offset = batch.rows.bytes.len() + start;
            batch.identify(id, offset..offset + row.len());
        }
    }

    /// The fast path.
    #[inline]
    fn walk(&mut self) -> Walk<'_> {
        Walk {
            plan: &self.plan,
            window: &mut self.window,
            known: &mut self.known,
            order: &mut self.order,
            builder: &mut self.builder,
            server: &self.server,
            inside: Inside {
                scratch: &mut self.scratch,
                workspace: &mut self.workspace,
                invalid_text: self.invalid_text,
                counter: &mut self.counter,
                level: 1,
            },
            mapped: &mut self.mapped,
            keys: None,
            path: "",
            siblings: self.siblings.as_mut(),
        }
    }

    /// Checks the arrays of Nested columns in the row that was finished last.
    #[inline]
    fn check_siblings(&mut self) -> Result<(), Rejection> {
        self.siblings.as_mut().map_or(Ok(()), |siblings| siblings.check(self.builder.last_row()))
    }

    /// Encodes a line on the slow path.
    #[cold]
    fn encode_line(&mut self, line: &[u8]) -> Result<(), Rejection> {
        self.counter.begin_line();
        let line = trim_end(line);
        if line.len() > self.limits.line_bytes_max {
            let message =
                format!("the line has {} bytes, more than the limit of {}", line.len(), self.limits.line_bytes_max);
            return Err(Rejection::new(LineCode::LineTooLong, message));
        }
        let line = match self.invalid_text {
            InvalidText::Reject => Cow::Borrowed(line),
            InvalidText::Replace => repair::line(line),
        };
        let done = general::encode_line(&self.plan, &line, &self.server, &mut self.builder, &mut self.counter);
        let done = done.and_then(|()| self.check_siblings());
        if done.is_err() {
            self.builder.abandon();
        }
        done
    }

    /// As much of a rejected line as the quarantine stores, and a few bytes. It is UTF-8 if invalid text
    /// is replaced, else as received.
    fn valid_front<'a>(&self, line: &'a [u8]) -> Cow<'a, [u8]> {
        const CHARACTER_BYTES_MAX: usize = 4;
        let line = trim_end(line);
        if self.invalid_text == InvalidText::Reject {
            return Cow::Borrowed(line);
        }
        // A character that is cut at this end is behind what is stored.
        let end = line.len().min(limits::QUARANTINE_LINE_BYTES_MAX + CHARACTER_BYTES_MAX);
        repair::utf8(line.get(..end).unwrap_or(line))
    }

    /// Adds a rejected line to the batch and to the report.
    #[cold]
    fn reject(
        &self,
        rejection: Rejection,
        number: u32,
        line: &[u8],
        origin: &Origin,
        batch: &mut Batch,
        report: &mut Report,
    ) {
        let section = &mut batch.rejected;
        let rejected = RejectedLine {
            server_time_unix_ns: origin.server_time_unix_ns,
            ip: self.address_form.of(origin.client_ip),
            code: rejection.code.as_str(),
            message: &rejection.message,
            line: &self.valid_front(line),
        };
        rejected.put_row(&mut section.bytes);
        section.count += 1;
        report.reject(number, rejection);
    }
}

#[cfg(test)]
mod tests;
