//! The proof of a repeat: a lookup of its rows in the table.
//!
//! A plain MergeTree writes the token of an INSERT to its log of tokens just before the rows become
//! visible. If ClickHouse is killed in between, it knows the token and does not have the rows: it
//! answers every repeat with success and stores nothing. The success of a *repeat* is therefore a
//! proof only if the server was started before the first attempt without an answer. Otherwise a
//! sample of the rows is looked up in the table.
//!
//! The lookup comes after the repeat, because a server that is asked before could be killed between
//! the lookup and the repeat. After a successful repeat the token is known, so no other attempt can
//! store the rows any more, except one that is between its token and its rows at that moment. The
//! versions of ClickHouse whose sources were read hold a lock over both steps, for which the repeat
//! waits, but that is not documented. The rows therefore count as absent only if two lookups, some
//! time apart and each after a successful repeat, find none of them. They are then sent under the
//! next token.
//!
//! | rows of the sample in the table | result |
//! |---|---|
//! | all | the repeat is proven |
//! | none, twice | the token is used up; the block is sent again under the next one |
//! | some | the block is held; an INSERT into several partitions may be stored in part |
//!
//! With an operator's order to convert the columns, only those columns are compared that the table still
//! has as they were. That can prove that the rows are absent, and never that they are there: rows of
//! other INSERTs may equal them in the columns that are left. Then the block is held.
//!
//! A column that gets its default in a row of the sample is not compared, because only ClickHouse knows its
//! value. If it has a value in another row, rows that look the same may differ in it, and the others alone
//! can only prove that the rows are absent.
//!
//! Limits of the lookup: rows that are equal in every column, in this INSERT or in others, count as
//! one. Rows that were deleted since, or that a row policy hides from this user, count as absent. In
//! a table without a `server_time` column, and with engines that merge rows, there is no lookup and
//! the token alone counts.

use std::io;
use std::time::Duration;

use super::attempt::Insert;
use super::defaults;
use super::due::Work;
use super::failure::{FORCE, Failure, NO_ORDERS};
use super::inserter::Inserts;
use super::outcome::Class;
use super::row_json;
use super::rows::RowReader;
use super::statement;
use crate::clickhouse::client::{ClickHouse, ClientError};
use crate::clickhouse::description::{TableError, describe_table};
use crate::clickhouse::facts::{Expiry, TableFacts, is_replicated};
use crate::clickhouse::frozen::Frozen;
use crate::clickhouse::name::{TableName, quoted};
use crate::clickhouse::servers::ServerIndex;
use crate::clickhouse::settings::READING_ROWS;
use crate::clock::unix_ms;

/// The column with the server's time, by which the lookup is restricted.
const SERVER_TIME: &str = "server_time";

/// The most rows of a sample.
const SAMPLE_ROWS_MAX: u64 = 100;

/// The most bytes of a sample, which is part of the text of the query.
const SAMPLE_BYTES_MAX: u64 = 32 << 10;

/// Pause between two lookups that find nothing. An INSERT takes less from its token to its rows.
const LOOKUP_PAUSE: Duration = Duration::from_secs(2);

/// Time limit of a lookup in ClickHouse, in seconds.
const LOOKUP_SECONDS_MAX: &str = "30";

/// The result of a lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Presence {
    /// All rows of the sample that have not expired are in the table.
    All,
    /// None of these rows is in the table, as this sentence says.
    Nothing(String),
    /// The lookup gives no result, for this reason.
    Unknown(String),
}

impl Inserts {
    /// Proves a successful repeat whose first attempt began at `since_ms`.
    pub(super) fn prove(
        &self,
        server: &ClickHouse,
        index: ServerIndex,
        work: &Work,
        insert: &Insert,
        since_ms: u64,
    ) -> Result<(), Failure> {
        let table = &insert.frozen.table;
        let failed = |error| self.not_looked_up(insert, server, error, work.attempts);
        let facts = self.servers.facts(index, table).map_err(failed)?;
        let can_lie = facts.window.is_some() && !is_replicated(&facts.engine);
        if !can_lie || !work.block.is_suspect() && has_been_up_since(server, since_ms).map_err(failed)? {
            return Ok(());
        }
        let presence = match self.look_up(server, index, work, insert) {
            Ok(presence) => presence,
            // ClickHouse knows the token, so it may have some of the rows.
            Err(undecided) => return Err(Failure { answered: false, ..undecided }),
        };
        let reason = match presence {
            Presence::All => return Ok(()),
            Presence::Nothing(reason) => reason,
            Presence::Unknown(why) if work.orders.force => why,
            Presence::Unknown(why) => {
                let what = if work.block.is_suspect() {
                    "an earlier attempt was answered with an error that may leave its token without its rows"
                } else {
                    "ClickHouse was restarted after an attempt without an answer"
                };
                let reason = format!(
                    "{table} at {}: {what}, so the success of the repeat is no proof, and the rows can't be looked up: \
                     {why}; check whether the table has them; `sluicegate spool requeue --force` sends the whole block \
                     again, which doubles the rows that are there",
                    server.url()
                );
                return Err(Failure { answered: false, ..Failure::hold(reason).helped_by(FORCE) });
            }
        };
        let error = Some(ClientError::Absent(reason.clone()));
        Err(Failure { class: Class::Retry, answered: false, suspicious: false, reason, remedy: NO_ORDERS, error })
    }

    /// Handles rows that a lookup did not find. The first time the repeat and the lookup are made once
    /// more; the second time the block is sent again under the next token.
    pub(super) fn absent(&self, mut work: Work, failure: Failure) {
        if !work.absent {
            tracing::warn!(
                block = %work.block.number(),
                reason = failure.reason,
                "ClickHouse confirmed a repeat, and its rows are not in the table; the repeat is made once more"
            );
            work.absent = true;
            return self.due.later(work, LOOKUP_PAUSE);
        }
        let (number, used_up) = (work.block.number(), work.block.token());
        if let Err(error) = work.block.use_up_token() {
            return self.put_back(work, &Failure::on_disk(error));
        }
        tracing::warn!(
            block = %number,
            used_up,
            token = work.block.token(),
            reason = failure.reason,
            "ClickHouse knows a token and does not have its rows; they are sent again under another one"
        );
        self.spool.held.release(number);
        work.absent = false;
        work.orders.force = false;
        self.due.later(work, Duration::ZERO);
    }

    /// Looks up a sample of the rows.
    ///
    /// # Errors
    ///
    /// If the query fails; the failure is temporary or needs operator action.
    pub(super) fn look_up(
        &self,
        server: &ClickHouse,
        index: ServerIndex,
        work: &Work,
        insert: &Insert,
    ) -> Result<Presence, Failure> {
        let table = &insert.frozen.table;
        let failed = |error| self.not_looked_up(insert, server, error, work.attempts);
        let facts = self.servers.fresh_facts(index, table).map_err(failed)?;
        if let Some(why) = why_not_looked_up(&facts, &insert.frozen) {
            return Ok(Presence::Unknown(why));
        }
        let now = describe_table(server, table).map_err(|error| match error {
            TableError::Client(error) => failed(error),
            other => Failure::hold(other.to_string()),
        })?;
        let unchanged = statement::unchanged(&insert.frozen.columns, &now);
        let is_partial = unchanged.len() < insert.frozen.columns.len();
        if is_partial && !(insert.convert && unchanged.contains(&SERVER_TIME)) {
            let changed = statement::advice_for(&insert.frozen.columns, &now);
            return Ok(Presence::Unknown(format!("the columns of the table have changed{changed}")));
        }
        let sample = insert.rows(&work.block).and_then(|rows| sample(rows, insert.bytes, insert.rows));
        let sample = sample.map_err(Failure::on_disk)?;
        let left_out = computed_columns(&insert.frozen, &sample).map_err(Failure::on_disk)?;
        if let Expiry::At(expression) = &facts.expiry
            && left_out.columns.iter().any(|column| expression.contains(column))
        {
            return Ok(Presence::Unknown("the table's TTL depends on a column that holds defaults".to_owned()));
        }
        let is_partial = is_partial || left_out.is_mixed;
        let compared: Vec<&str> = unchanged.into_iter().filter(|name| !left_out.columns.contains(name)).collect();
        let keys: Vec<&str> =
            compared.iter().copied().filter(|name| facts.key_columns.iter().any(|key| key == name)).collect();
        let question = question(table, &insert.frozen, &compared, &keys, &facts.expiry, &sample);
        let size = (question.len() + 1).to_string();
        // Override the profile of the ClickHouse user, in what this server knows.
        let sent = self.settings_of(server, index, insert, work.attempts)?;
        let reading = sent.iter().filter(|(name, _)| READING_ROWS.contains(&name.as_str()));
        let mut settings = vec![
            ("max_query_size", size.as_str()),
            ("max_execution_time", LOOKUP_SECONDS_MAX),
            ("use_query_cache", "0"),
        ];
        settings.extend(reading.map(|(name, value)| (name.as_str(), value.as_str())));
        let answer = server.query(&question, &settings).map_err(failed)?;
        let Some(found) = SampleFound::read(&answer) else {
            let answer: String = answer.chars().take(100).collect();
            return Ok(Presence::Unknown(format!("the answer to the lookup is not understood: {answer}")));
        };
        let compared = Compared { is_partial, has_keys: !keys.is_empty(), is_rewritten: facts.is_rewritten };
        Ok(found.presence(compared, |what| format!("{table} at {}: {what}", server.url())))
    }

    fn not_looked_up(&self, insert: &Insert, server: &ClickHouse, error: ClientError, attempts: u32) -> Failure {
        let failure = Failure::of_question(&insert.frozen.table, server, error, attempts);
        Failure { reason: format!("the rows of a repeat can't be looked up: {}", failure.reason), ..failure }
    }
}

/// The reason why rows of this table can't be looked up; `None` if they can.
pub(super) fn why_not_looked_up(facts: &TableFacts, frozen: &Frozen) -> Option<String> {
    if facts.engine != "MergeTree" {
        return Some(format!(
            "the engine is {}, and only a plain MergeTree keeps every row as it was sent",
            facts.engine
        ));
    }
    if !frozen.columns.iter().any(|(name, _)| name == SERVER_TIME) {
        return Some(format!("the rows have no column `{SERVER_TIME}`, which a lookup needs"));
    }
    if facts.has_row_policy {
        return Some("a row policy may hide rows from this user".to_owned());
    }
    (facts.expiry == Expiry::Unknown).then(|| "the table's TTL does more than delete rows after a time".to_owned())
}

/// True if the server was certainly started before `since_ms`. `uptime()` is in whole seconds,
/// rounded down.
fn has_been_up_since(server: &ClickHouse, since_ms: u64) -> Result<bool, ClientError> {
    let answer = server.query("SELECT uptime()", &[])?;
    Ok(answer.trim().parse().is_ok_and(|uptime| was_up(uptime, unix_ms(), since_ms)))
}

fn was_up(uptime_seconds: u64, now_ms: u64, since_ms: u64) -> bool {
    // If the clock was set back since, the comparison is not valid.
    since_ms <= now_ms && now_ms.saturating_sub(uptime_seconds.saturating_mul(1000)) < since_ms
}

/// A sample of rows spread over an INSERT. It includes the first row, and the last if it fits.
fn sample(mut rows: RowReader, bytes: u64, count: u64) -> io::Result<Vec<u8>> {
    let a_row = (bytes / count.max(1)).max(1);
    let wanted = (SAMPLE_BYTES_MAX / a_row).clamp(1, SAMPLE_ROWS_MAX);
    let mut sample = Vec::new();
    for index in 0..count {
        let Some(row) = rows.next_row()? else { break };
        let has_room = (sample.len() + row.len()) as u64 <= SAMPLE_BYTES_MAX;
        if sample.is_empty() || has_room && is_wanted(index, count, wanted) {
            sample.extend_from_slice(&row);
        }
    }
    Ok(sample)
}

/// True for about `wanted` of `count` rows at even distances, and for the last.
fn is_wanted(index: u64, count: u64, wanted: u64) -> bool {
    let place = |index: u64| index.saturating_mul(wanted) / count.max(1);
    index + 1 == count || index == 0 || place(index) != place(index - 1)
}

/// The columns by which rows can't be compared, because ClickHouse computes some of their values or stores
/// none.
#[derive(Debug, Default, PartialEq, Eq)]
struct LeftOut<'a> {
    columns: Vec<&'a str>,
    /// True if some row of the sample has a value in one of these columns: then rows that are the same in the
    /// others may differ.
    is_mixed: bool,
}

/// The EPHEMERAL columns, and those that get their default in some row of the sample.
fn computed_columns<'a>(frozen: &'a Frozen, sample: &[u8]) -> io::Result<LeftOut<'a>> {
    if frozen.defaults.is_empty() {
        return Ok(LeftOut::default());
    }
    let mut rows = RowReader::of_bytes(bytes::Bytes::copy_from_slice(sample), &frozen.parts())?;
    let (mut count, mut values) = (0u64, vec![0u64; frozen.defaults.len()]);
    while let Some(row) = rows.next_row()? {
        let cells = row_json::cells(frozen, &row)?;
        for (values, default) in values.iter_mut().zip(&frozen.defaults) {
            *values += u64::from(cells.iter().any(|cell| cell.name == default.column));
        }
        count += 1;
    }
    let mut left_out = LeftOut::default();
    for (values, default) in values.into_iter().zip(&frozen.defaults) {
        if default.ephemeral || values < count {
            left_out.columns.push(&default.column);
            left_out.is_mixed |= !default.ephemeral && values > 0;
        }
    }
    Ok(left_out)
}

/// The query for the number of distinct rows in the sample that have not expired, the number of those
/// that the table has, and the number of their distinct keys that the table has. Rows are compared by
/// `columns`. A key consists of the columns that no mutation changes; without such columns it is the row.
///
/// Rows are compared as text, because the text of a value is the same before and after it is stored,
/// whatever its type.
fn question(
    table: &TableName,
    frozen: &Frozen,
    columns: &[&str],
    keys: &[&str],
    expiry: &Expiry,
    sample: &[u8],
) -> String {
    let tuple = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| quoted(name)).collect();
        format!("toString(tuple({}))", names.join(", "))
    };
    let row = tuple(columns);
    let key = if keys.is_empty() { row.clone() } else { tuple(keys) };
    let (time, structure) = (quoted(SERVER_TIME), statement::structure(frozen));
    let hex: String = sample.iter().map(|byte| format!("{byte:02x}")).collect();
    let lives = match expiry {
        // A row that is about to expire may be gone when the table is read.
        Expiry::At(expression) => format!("toDateTime64({expression}, 3) > now() + INTERVAL 1 HOUR"),
        Expiry::Never | Expiry::Unknown => "1".to_owned(),
    };
    let named = if frozen.defaults.is_empty() { "*".to_owned() } else { defaults::with(frozen) };
    format!(
        "WITH sent AS (SELECT {named} FROM format('RowBinary', '{structure}', unhex('{hex}')) WHERE {lives}) \
         SELECT (SELECT uniqExact({row}) FROM sent), uniqExactIf({row}, {row} IN (SELECT {row} FROM sent)), \
         uniqExact({key}) FROM {table} \
         WHERE {time} BETWEEN (SELECT min({time}) FROM sent) AND (SELECT max({time}) FROM sent) \
         AND {key} IN (SELECT {key} FROM sent) FORMAT TSV"
    )
}

/// How rows are compared by the query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Compared {
    /// Not by all their columns, because some have changed, or have defaults in some rows.
    is_partial: bool,
    /// Some of the columns are key columns, which no mutation changes.
    has_keys: bool,
    /// A mutation or a TTL of columns may have changed the rows.
    is_rewritten: bool,
}

/// The answer to the query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SampleFound {
    /// Distinct rows in the sample that have not expired.
    wanted: u64,
    /// Those of them that are in the table.
    there: u64,
    /// Their distinct keys that are in the table.
    keys: u64,
}

impl SampleFound {
    fn read(answer: &str) -> Option<Self> {
        let mut numbers = answer.trim().split('\t').map(|number| number.parse().ok());
        let found = Self { wanted: numbers.next()??, there: numbers.next()??, keys: numbers.next()?? };
        numbers.next().is_none().then_some(found)
    }

    /// The result of the lookup. If rows may have been rewritten, rows whose keys are there do not count as
    /// absent, and without keys none does.
    fn presence(self, compared: Compared, at: impl Fn(String) -> String) -> Presence {
        let Self { wanted, there, keys } = self;
        let Compared { is_partial, has_keys, is_rewritten } = compared;
        // Includes a sample that has expired completely: its presence makes no difference.
        if there == wanted && (wanted == 0 || !is_partial) {
            return Presence::All;
        }
        if there == 0 && (!is_rewritten || has_keys && keys == 0) {
            return Presence::Nothing(at(format!("none of the {wanted} rows that were looked up is there")));
        }
        if is_partial && there > 0 {
            return Presence::Unknown(at(format!(
                "the columns of the table have changed, or some hold defaults of ClickHouse, and by the others {there} of \
                 {wanted} rows that were looked up are there; they may be rows of other INSERTs. Delete the block's rows from the table, and \
                 `sluicegate spool requeue --convert` inserts the whole block"
            )));
        }
        if there == 0 && !has_keys {
            return Presence::Unknown(at(format!(
                "none of the {wanted} rows that were looked up is there, but a TTL of columns or a mutation may have \
                 changed them, and the table has no key columns to find them by"
            )));
        }
        if there == 0 {
            return Presence::Unknown(at(format!(
                "of {wanted} rows that were looked up, {keys} are there by their keys, but with other values; a TTL of \
                 columns or a mutation may have changed them"
            )));
        }
        Presence::Unknown(at(format!(
            "of {wanted} rows of the block that were looked up {there} are there. Delete the block's rows from the \
             table, and the whole block is inserted automatically"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_was_up_only_if_it_was_certainly_started_before() {
        // Up for 10.0 to 11.0 seconds at 100 s: started between 89 s and 90 s.
        assert!(was_up(10, 100_000, 90_001));
        assert!(!was_up(10, 100_000, 90_000));
        assert!(!was_up(10, 100_000, 89_500));
        assert!(!was_up(0, 100_000, 100_000));
        assert!(was_up(u64::MAX, 5, 1));
    }

    #[test]
    fn a_sample_is_spread_and_has_both_ends() {
        for (count, wanted) in [(1, 1), (1, 100), (7, 100), (100, 100), (101, 100), (500_000, 100), (1000, 3)] {
            let places: Vec<u64> = (0..count).filter(|index| is_wanted(*index, count, wanted)).collect();
            assert!(places.len() as u64 <= wanted.min(count) + 1, "{count} {wanted}: {places:?}");
            assert!(places.len() as u64 >= wanted.min(count), "{count} {wanted}: {places:?}");
            assert_eq!((places.first(), places.last()), (Some(&0), Some(&(count - 1))));
            let widest = places.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
            assert!(widest <= count.div_ceil(wanted), "{count} {wanted}: {places:?}");
        }
    }

    #[test]
    fn a_sample_has_so_many_bytes_and_at_least_a_row() {
        let columns = vec![("a".to_owned(), "String".to_owned())];
        let of = |len: usize, count: u64| {
            let (mut row, mut left) = (Vec::new(), len);
            while left >= 0x80 {
                row.push(left as u8 | 0x80);
                left >>= 7;
            }
            row.push(left as u8);
            row.resize(row.len() + len, b'x');
            let all = bytes::Bytes::from(row.repeat(count as usize));
            let bytes = all.len() as u64;
            sample(RowReader::of_bytes(all, &columns).unwrap(), bytes, count).unwrap().len() / row.len()
        };
        assert_eq!(of(10, 3), 3);
        assert_eq!(of(10, 10_000), 101);
        assert_eq!(of(1000, 10_000), 32);
        assert_eq!(of(1 << 20, 5), 1);
    }

    #[test]
    fn only_an_answer_with_all_numbers_is_one() {
        let read = |answer| SampleFound::read(answer).map(|found| (found.wanted, found.there, found.keys));
        assert_eq!(read("7\t3\t5\n"), Some((7, 3, 5)));
        for answer in ["", "7", "7\t3", "x\t1\t1\n", "1\t2\t3\t4"] {
            assert_eq!(read(answer), None, "{answer}");
        }
    }

    #[test]
    fn what_is_found_of_the_sample_decides() {
        let found = |wanted, there, keys, compared| SampleFound { wanted, there, keys }.presence(compared, |what| what);
        let whole = |is_rewritten| Compared { is_partial: false, has_keys: true, is_rewritten };
        let of = |wanted, there, keys, is_rewritten| found(wanted, there, keys, whole(is_rewritten));
        for is_rewritten in [false, true] {
            assert_eq!(of(7, 7, 7, is_rewritten), Presence::All);
            assert_eq!(of(0, 0, 0, is_rewritten), Presence::All, "all of it has expired");
            assert!(matches!(of(7, 0, 0, is_rewritten), Presence::Nothing(_)));
            assert!(matches!(of(7, 3, 7, is_rewritten), Presence::Unknown(_)));
        }
        assert!(matches!(of(7, 0, 7, false), Presence::Nothing(_)), "other events have the same keys");
        assert!(matches!(of(7, 0, 7, true), Presence::Unknown(_)), "only the values differ");
        let without_keys = |is_rewritten| Compared { has_keys: false, ..whole(is_rewritten) };
        assert!(matches!(found(7, 0, 0, without_keys(false)), Presence::Nothing(_)));
        assert!(matches!(found(7, 0, 0, without_keys(true)), Presence::Unknown(_)), "changed rows can't be found");
        let partial = |is_rewritten| Compared { is_partial: true, ..whole(is_rewritten) };
        for is_rewritten in [false, true] {
            assert!(matches!(found(7, 0, 0, partial(is_rewritten)), Presence::Nothing(_)));
            for there in 1..=7 {
                assert!(matches!(found(7, there, 7, partial(is_rewritten)), Presence::Unknown(_)), "others' rows");
            }
            assert_eq!(found(0, 0, 0, partial(is_rewritten)), Presence::All);
        }
    }
}
