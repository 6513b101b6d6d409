//! Are the rows there? What a repeat's success proves, and what it does not.
//!
//! A plain MergeTree writes an INSERT's token into its log of tokens a moment before the rows become
//! visible. A ClickHouse that is killed between the two knows the token from then on and has no rows:
//! it answers every repeat with success and stores nothing. So the success of a *repeat* is believed
//! at once only when the server has been up since before the first attempt whose outcome is unknown;
//! else some of the rows are looked up in the table.
//!
//! Why after the repeat, and not before it: a server that is asked first may be killed between the
//! question and the repeat. Behind its success there is nothing left to happen: the token is known
//! then, so whatever attempt may still be on its way stores nothing. All but one that stands between
//! token and rows in that very moment. The versions that were read hold a lock over both, for which
//! the repeat had to wait; but nobody promises that. So the rows have to be missing twice, some time
//! apart and after a success each; then they never come, and are sent under another token.
//!
//! | of the sample | |
//! |---|---|
//! | all there | the repeat is proven |
//! | nothing there, twice | the token is used up: all of it is sent again under the next one |
//! | some of it there | the segment is held: of an INSERT into several partitions some may be there |
//!
//! What the look can't see: it takes rows that are equal in every column, of this or another INSERT,
//! for one; and it takes rows that somebody deleted since, or may not be seen by this user because of
//! a row policy, for rows that were never there. Where there is no `server_time` to look by, and with
//! engines that merge rows away, the token alone is believed.

use std::io;
use std::time::Duration;

use super::attempt::Insert;
use super::due::Work;
use super::failure::Failure;
use super::inserter::Inserts;
use super::outcome::Class;
use super::rows::RowReader;
use super::statement;
use crate::clickhouse::client::{ClickHouse, ClientError};
use crate::clickhouse::description::{TableError, describe_table};
use crate::clickhouse::frozen::Frozen;
use crate::clickhouse::guarantee::TableFacts;
use crate::clickhouse::name::{TableName, quoted};
use crate::clickhouse::servers::ServerIndex;
use crate::clock::unix_ms;

/// The column that says when, in every row that the server made.
const SERVER_TIME: &str = "server_time";

/// RowReader that are looked up at most, and their bytes: they are part of the question's text.
const SAMPLE_ROWS_MAX: u64 = 100;
const SAMPLE_BYTES_MAX: u64 = 32 << 10;

/// Between two looks that find nothing: longer than an INSERT takes from its token to its rows.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// How long ClickHouse may look, in seconds.
const LOOK_SECONDS: &str = "30";

/// What was found of the sample.
enum Presence {
    All,
    Nothing(String),
}

impl Inserts {
    /// After the success of a repeat, of which the first attempt began at `since_ms`: is it one?
    pub(super) fn prove(
        &self,
        server: &ClickHouse,
        index: ServerIndex,
        work: &Work,
        insert: &Insert,
        since_ms: u64,
    ) -> Result<(), Failure> {
        let reason = match self.look_up(server, index, work, insert, since_ms) {
            Ok(Presence::All) => return Ok(()),
            Ok(Presence::Nothing(reason)) => reason,
            Err(undecided) if work.orders.force && undecided.class == Class::Hold => undecided.reason,
            // The token is known, so something may be there.
            Err(undecided) => return Err(Failure { answered: false, ..undecided }),
        };
        let error = Some(ClientError::Absent(reason.clone()));
        Err(Failure { class: Class::Retry, answered: false, reason, error })
    }

    /// Looks once more later; then sends all of it again, under the next token.
    pub(super) fn absent(&self, mut work: Work, failure: Failure) {
        if !work.absent {
            tracing::warn!(
                segment = work.segment.number().get(),
                reason = failure.reason,
                "a repeat that ClickHouse confirmed has not its rows; it is made once more"
            );
            work.absent = true;
            return self.due.later(work, LOOK_AGAIN);
        }
        let (segment, used_up) = (work.segment.number(), work.segment.token());
        if let Err(error) = work.segment.use_up_token() {
            return self.put_back(work, &Failure::on_disk(error));
        }
        tracing::warn!(
            segment = segment.get(),
            used_up,
            token = work.segment.token(),
            reason = failure.reason,
            "ClickHouse knows a token and has not its rows; they are sent again under another one"
        );
        self.spool.held.release(segment);
        work.absent = false;
        work.orders.force = false;
        self.due.later(work, Duration::ZERO);
    }

    fn look_up(
        &self,
        server: &ClickHouse,
        index: ServerIndex,
        work: &Work,
        insert: &Insert,
        since_ms: u64,
    ) -> Result<Presence, Failure> {
        let table = &insert.frozen.table;
        let failed = |error| {
            let failure = Failure::of_question(table, server, error, work.attempts);
            Failure {
                reason: format!("whether a repeat has its rows can't be looked up: {}", failure.reason),
                ..failure
            }
        };
        let facts = self.servers.facts(index, table).map_err(failed)?;
        if !can_be_looked_up(&facts, &insert.frozen) || has_been_up_since(server, since_ms).map_err(failed)? {
            return Ok(Presence::All);
        }
        let held = |what: String| {
            Err(Failure::hold(format!(
                "{table} at {}: ClickHouse was restarted after an attempt without an answer, and {what}; \
                 `sluicegate spool requeue --force` sends all of it again, which doubles what is there",
                server.url()
            )))
        };
        let now = describe_table(server, table).map_err(|error| match error {
            TableError::Client(error) => failed(error),
            other => Failure::hold(other.to_string()),
        })?;
        let changed = statement::advice_for(&insert.frozen.columns, &now);
        if !changed.is_empty() {
            return held(format!("whether it has the rows can't be looked up{changed}"));
        }
        let sample = insert.rows(&work.segment).and_then(|rows| sample(rows, insert.bytes, insert.rows));
        let sample = sample.map_err(Failure::on_disk)?;
        let question = question(table, &insert.frozen, &sample);
        let size = (question.len() + 1).to_string();
        // Whatever the user's profile says.
        let settings =
            [("max_query_size", size.as_str()), ("max_execution_time", LOOK_SECONDS), ("use_query_cache", "0")];
        let answer = server.query(&question, &settings).map_err(failed)?;
        match SampleFound::read(&answer) {
            Some(SampleFound { there, wanted }) if there == wanted => Ok(Presence::All),
            Some(SampleFound { there: 0, wanted }) => Ok(Presence::Nothing(format!(
                "{table} at {}: of {wanted} rows that were looked up none is there",
                server.url()
            ))),
            Some(SampleFound { there, wanted }) => held(format!(
                "of {wanted} rows of the segment that were looked up {there} are there. Delete from the table what it \
                 has of the segment, and all of it goes in by itself"
            )),
            None => held(format!("its answer is none: {}", answer.chars().take(100).collect::<String>())),
        }
    }
}

/// Is this a table whose token can be known without the rows, and whose rows stay as they were sent?
fn can_be_looked_up(facts: &TableFacts, frozen: &Frozen) -> bool {
    facts.engine == "MergeTree" && facts.window.is_some() && frozen.columns.iter().any(|(name, _)| name == SERVER_TIME)
}

/// True when the server was certainly started before `since_ms`. It says for how many whole seconds it
/// has been up, so it was started that long ago or longer.
fn has_been_up_since(server: &ClickHouse, since_ms: u64) -> Result<bool, ClientError> {
    let answer = server.query("SELECT uptime()", &[])?;
    Ok(answer.trim().parse().is_ok_and(|uptime| was_up(uptime, unix_ms(), since_ms)))
}

fn was_up(uptime_seconds: u64, now_ms: u64, since_ms: u64) -> bool {
    now_ms.saturating_sub(uptime_seconds.saturating_mul(1000)) < since_ms
}

/// RowReader spread over an INSERT, the first and the last among them where there is room.
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

/// Is this one of about `wanted` rows at even distances, or the last?
fn is_wanted(index: u64, count: u64, wanted: u64) -> bool {
    let place = |index: u64| index.saturating_mul(wanted) / count.max(1);
    index + 1 == count || index == 0 || place(index) != place(index - 1)
}

/// How many different rows the sample has, and how many of them the table has.
///
/// They are compared as text, which is one and the same for a value before and after it was stored,
/// whatever the type does with it on the disk.
fn question(into: &TableName, frozen: &Frozen, sample: &[u8]) -> String {
    let columns: Vec<String> = frozen.columns.iter().map(|(name, _)| quoted(name)).collect();
    let row = format!("toString(tuple({}))", columns.join(", "));
    let (time, structure) = (quoted(SERVER_TIME), statement::structure(frozen));
    let hex: String = sample.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "WITH sent AS (SELECT * FROM format('RowBinary', '{structure}', unhex('{hex}'))) \
         SELECT (SELECT uniqExact({row}) FROM sent), uniqExact({row}) FROM {into} \
         WHERE {time} BETWEEN (SELECT min({time}) FROM sent) AND (SELECT max({time}) FROM sent) \
         AND {row} IN (SELECT {row} FROM sent) FORMAT TSV"
    )
}

/// The answer.
struct SampleFound {
    wanted: u64,
    there: u64,
}

impl SampleFound {
    fn read(answer: &str) -> Option<Self> {
        let (wanted, there) = answer.trim().split_once('\t')?;
        let found = Self { wanted: wanted.parse().ok()?, there: there.parse().ok()? };
        (found.wanted > 0).then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_was_up_only_when_its_start_was_certainly_before() {
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
    fn only_an_answer_with_both_numbers_is_one() {
        let read = |answer| SampleFound::read(answer).map(|found| (found.wanted, found.there));
        assert_eq!(read("7\t3\n"), Some((7, 3)));
        for answer in ["", "7", "0\t0\n", "x\t1\n"] {
            assert_eq!(read(answer), None, "{answer}");
        }
    }
}
