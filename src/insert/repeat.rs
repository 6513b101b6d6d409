//! The repeat of an INSERT without an answer: whether the block may be sent again, and to which server.

use super::attempt::Insert;
use super::due::Work;
use super::failure::{FORCE, Failure};
use super::inserter::Inserts;
use super::presence::Presence;
use crate::batch::SegmentNumber;
use crate::clickhouse::client::{ClickHouse, ClientError};
use crate::clickhouse::facts::TableFacts;
use crate::clickhouse::horizon::FirstAttempt;
use crate::clickhouse::servers::ServerIndex;
use crate::clickhouse::version::Release;
use crate::clock::unix_ms;
use crate::spool::OpenAttempt;

/// The note about the server of an attempt, which is stored in the block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServerNote {
    /// Name of the deduplication window that would know the token; empty if unknown.
    pub(super) window: String,
    pub(super) release: Option<Release>,
    pub(super) newest_block: Option<u64>,
    /// Number of blocks of this node that were not inserted at the start of the attempt.
    pub(super) not_inserted: Option<u64>,
}

impl ServerNote {
    pub(super) fn of(facts: &TableFacts, not_inserted: u64) -> Self {
        let release = Release::of(&facts.version);
        let (window, newest_block) = (facts.window_name.clone(), facts.newest_block);
        Self { window, release, newest_block, not_inserted: Some(not_inserted) }
    }

    /// Encodes the note as four lines.
    pub(super) fn to_text(&self) -> String {
        let release = self.release.map(|release| release.to_string()).unwrap_or_default();
        let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
        format!("{}\n{release}\n{}\n{}", self.window, number(self.newest_block), number(self.not_inserted))
    }

    /// Decodes a note. A note of an older version has only the first lines.
    pub(super) fn read(text: &str) -> Self {
        let mut lines = text.lines();
        Self {
            window: lines.next().unwrap_or_default().to_owned(),
            release: lines.next().and_then(Release::of),
            newest_block: lines.next().and_then(|block| block.parse().ok()),
            not_inserted: lines.next().and_then(|number| number.parse().ok()),
        }
    }

    /// True if it is the window of this table, by its name or by what an older release called it.
    fn names(&self, facts: &TableFacts) -> bool {
        self.window == facts.window_name || facts.former_window_name.as_ref() == Some(&self.window)
    }

    /// The most blocks of this node that may have been inserted since the attempt, which began when
    /// `newest_then` was the newest: all newer ones, and those that were not inserted then. The largest
    /// number if an older version did not note how many these were.
    fn blocks_since(&self, newest_then: SegmentNumber, newest_now: SegmentNumber) -> u64 {
        self.not_inserted.map_or(u64::MAX, |number| newest_now.since(newest_then).saturating_add(number))
    }
}

/// How to continue with a block that ClickHouse may have.
pub(super) enum Repeat {
    /// Send the block again under the same token.
    Send,
    /// Try another server: this one would not recognise the token.
    Elsewhere,
    /// Send nothing: the rows are in the table.
    IsThere,
}

impl Inserts {
    /// Decides whether the rows may be sent to this server again. `facts` must be fresh, so that a table
    /// that was exchanged for another one is noticed.
    pub(super) fn may_repeat(
        &self,
        work: &Work,
        insert: &Insert,
        index: ServerIndex,
        server: &ClickHouse,
        facts: &TableFacts,
        open: &OpenAttempt,
    ) -> Result<Repeat, Failure> {
        let then = ServerNote::read(&open.server);
        if facts.window.is_some() && !then.names(facts) {
            return Ok(Repeat::Elsewhere);
        }
        let first = FirstAttempt {
            since_ms: open.since_ms,
            blocks_since: then.blocks_since(open.newest, self.spool.newest()),
            release: then.release,
            newest_block: then.newest_block,
        };
        let Err(reason) = self.writers.still_known(facts, &first, unix_ms()) else { return Ok(Repeat::Send) };
        let held = |why: String| {
            Err(Failure::hold(format!(
                "ClickHouse may have the block, and may have forgotten its token: {reason}; {why}; check whether the \
                 table has its rows; `sluicegate spool requeue --force` sends it again, which doubles the rows that are \
                 there"
            ))
            .helped_by(FORCE))
        };
        match self.look_up(server, index, work, insert) {
            Ok(Presence::All) => Ok(Repeat::IsThere),
            Ok(Presence::Nothing(_)) => {
                self.none_runs(server, insert, work.attempts)?;
                Ok(Repeat::Send)
            }
            Ok(Presence::Unknown(why)) => held(format!("its rows can't be looked up: {why}")),
            Err(failure) => Err(failure),
        }
    }

    /// Looks the rows up, and checks that no attempt still runs. If the result is [`Presence::Nothing`],
    /// ClickHouse certainly has none of the rows.
    pub(super) fn is_certainly_not_there(
        &self,
        server: &ClickHouse,
        index: ServerIndex,
        work: &Work,
        insert: &Insert,
    ) -> Result<Presence, Failure> {
        let presence = self.look_up(server, index, work, insert)?;
        if let Presence::Nothing(_) = presence {
            self.none_runs(server, insert, work.attempts)?;
        }
        Ok(presence)
    }

    /// Checks that no earlier attempt still runs, which might store the rows after the lookup.
    fn none_runs(&self, server: &ClickHouse, insert: &Insert, attempts: u32) -> Result<(), Failure> {
        let prefix = insert.query_id_prefix();
        let statement = "SELECT count() FROM system.processes WHERE startsWith(query_id, {prefix:String})";
        let failed = |error: ClientError| Failure::of_question(&insert.frozen.table, server, error, attempts);
        let count = server.query(statement, &[("param_prefix", &prefix)]).map_err(failed)?;
        if count.trim() == "0" {
            return Ok(());
        }
        Err(Failure::passing(format!("{}: an earlier attempt still runs", server.url())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_decoded_as_encoded_and_an_older_one_has_only_its_first_lines() {
        let note = ServerNote {
            window: "http://a uuid".into(),
            release: Some(Release::new(26, 7)),
            newest_block: Some(12),
            not_inserted: Some(3),
        };
        assert_eq!(ServerNote::read(&note.to_text()), note);
        let without_count = ServerNote { not_inserted: None, ..note };
        assert_eq!(ServerNote::read("http://a uuid\n26.7\n12"), without_count);
        let unknown = ServerNote { window: "zk:/t".into(), release: None, newest_block: None, not_inserted: None };
        assert_eq!(ServerNote::read(&unknown.to_text()), unknown);
        assert_eq!(ServerNote::read("zk:/t"), unknown);
        assert_eq!(ServerNote::read("").window, "");
    }

    #[test]
    fn an_embedded_clickhouse_is_known_by_what_an_older_release_called_it() {
        let facts = |former: Option<&str>| TableFacts {
            window_name: "id uuid".into(),
            former_window_name: former.map(str::to_owned),
            ..TableFacts::default()
        };
        let names = |note: &str, former| ServerNote::read(note).names(&facts(former));
        assert!(names("id uuid\n26.7", None) && names("http://a/ uuid", Some("http://a/ uuid")));
        assert!(!names("http://a/ uuid", None) && !names("http://a/ other", Some("http://a/ uuid")));
        assert!(!names("", None) && !names("", Some("http://a/ uuid")));
    }

    #[test]
    fn a_backlog_of_then_counts_though_it_is_inserted_by_now() {
        let note = |not_inserted| ServerNote { not_inserted, ..ServerNote::read("") };
        let (then, now) = (SegmentNumber::new(5000), SegmentNumber::new(5010));
        assert_eq!(note(Some(4000)).blocks_since(then, now), 4010);
        assert_eq!(note(Some(1)).blocks_since(then, then), 1, "itself");
        assert_eq!(note(None).blocks_since(then, now), u64::MAX);
    }
}
