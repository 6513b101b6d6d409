//! Rejected lines that an operator sends again: each keeps the address and the time that it came with.
//!
//! They come by the admin address, with both in the body; no public request sets either. They are
//! encoded as any event, and go to the committer in a batch under a key, as those of a worker do.
//! Nothing of a line that is rejected again is stored: it is still in the quarantine.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, TryLockError};
use std::thread;
use std::time::Duration;

use super::Shared;
use crate::api::{Fault, KEY_REUSED, Shed, TABLE_UNAVAILABLE};
use crate::batch::identity::{self, BodyHashing, RequestKey, Summary};
use crate::batch::{Batch, CommitOutcome, Mark, TableIndex};
use crate::handoff::ListSubscription;
use crate::http::Status;
use crate::ndjson::{AddressForm, AddressHash, Origin, Report, RowEncoder};
use crate::schema::{AddressKind, Addresses, Plan, SchemaVersion, Source};

/// Between two looks whether a batch is committed.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

const STOPPING: Fault = Fault::new(Status::ServiceUnavailable, "stopping", "The server stops; nothing was promised.");
const BUSY: Fault = Fault::new(Status::ServiceUnavailable, "busy", "Other lines are being replayed.");

/// What was stored of the address of a rejected line's client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayedClient {
    /// Nothing.
    Unknown,
    /// The address, or a part of it.
    Address(IpAddr),
    /// Its hash (`--client-ip hashed`).
    Hash(AddressHash),
}

/// A rejected line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayedLine<'a> {
    /// When its request was read, Unix seconds.
    pub second: u32,
    /// What is known of the client's address.
    pub client: ReplayedClient,
    /// The line.
    pub line: &'a [u8],
}

/// A table whose rejected lines are sent again.
pub struct ReplayTable {
    /// Its name among all tables.
    pub name: String,
    /// Encodes its rows.
    pub encoder: RowEncoder,
}

/// Stores rejected lines; one request at a time.
pub struct Replayer {
    shared: Arc<Shared>,
    /// The node's name in tokens: it alone knows which requests came before.
    pub node: String,
    bodies: Arc<BodyHashing>,
    state: Mutex<State>,
}

struct State {
    schemas: ListSubscription<Option<SchemaVersion>>,
    tables: Vec<Replayed>,
    batch: Batch,
}

/// What belongs to one table.
struct Replayed {
    /// What the keys belong to.
    stream: String,
    encoder: RowEncoder,
    version: Arc<Option<SchemaVersion>>,
}

impl Replayer {
    /// For these tables, in the order of their schemas.
    pub fn new(
        shared: Arc<Shared>,
        node: String,
        bodies: Arc<BodyHashing>,
        tables: impl IntoIterator<Item = ReplayTable>,
    ) -> Self {
        let replayed = |ReplayTable { name, encoder }| Replayed {
            // No table has a space in front of its name: no public request has a key of this stream.
            stream: format!(" quarantine of {name}"),
            encoder,
            version: Arc::new(None),
        };
        let state = State {
            schemas: ListSubscription::new(&shared.schemas),
            tables: tables.into_iter().map(replayed).collect(),
            batch: Batch::new(shared.handoff.workers()),
        };
        Self { shared, node, bodies, state: Mutex::new(state) }
    }

    /// Stores the lines that are good for the table now: which of them are. With `dry_run` none is stored.
    ///
    /// # Errors
    ///
    /// Nothing was promised, or the same key came before and other lines were good then.
    pub fn store(
        &self,
        table: TableIndex,
        key: &[u8],
        lines: &[ReplayedLine<'_>],
        dry_run: bool,
    ) -> Result<Vec<bool>, Fault> {
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(BUSY),
        };
        let State { schemas, tables, batch } = &mut *state;
        schemas.take_changed(|table, version| {
            if let Some(replayed) = tables.get_mut(table.get()) {
                if let Some(version) = &*version {
                    replayed.encoder.follow(version.plan.clone());
                }
                replayed.version = version;
            }
        });
        let Some(replayed) = tables.get_mut(table.get()) else { return Err(TABLE_UNAVAILABLE) };
        let version = replayed.version.clone();
        let Some(version) = &*version else { return Err(TABLE_UNAVAILABLE) };
        batch.clear();
        let mut encode = |line| replayed.encode(&version.plan, line, batch);
        let are_good: Vec<bool> = lines.iter().map(&mut encode).collect();
        let accepted = batch.rows.count;
        if dry_run || accepted == 0 {
            return Ok(are_good);
        }
        let body: Vec<u8> = are_good.iter().map(|good| u8::from(*good)).collect();
        let rejected = (lines.len() as u32).saturating_sub(accepted);
        let id = identity::of_request(&replayed.stream, key);
        let summary = Summary { accepted, rejected, refused: false };
        let key = RequestKey { id, body: self.bodies.hash(&body), summary };
        batch.add_keyed(key, Mark::default());
        (batch.table, batch.frozen) = (table, version.frozen.clone());
        match self.commit(batch)? {
            CommitOutcome::Committed { .. } | CommitOutcome::Deduplicated { .. } | CommitOutcome::Repeated { .. } => {
                Ok(are_good)
            }
            CommitOutcome::KeyReused => Err(KEY_REUSED),
            // The batch stores something.
            CommitOutcome::NoRepeat => Err(KEY_REUSED),
            CommitOutcome::Refused(refusal) => Err(Shed::Commit(refusal).into()),
        }
    }

    /// Hands the batch to the committer and waits until it is back.
    fn commit(&self, batch: &mut Batch) -> Result<CommitOutcome, Fault> {
        let handoff = &self.shared.handoff;
        let (stopping, index) = (handoff.lifecycle.is_stopping(), handoff.workers());
        let Some(mailbox) = handoff.mailbox(index).filter(|_| !stopping) else {
            return Err(STOPPING);
        };
        let mut submitted = std::mem::take(batch);
        submitted.worker = index;
        submitted.sequence = submitted.sequence.next();
        submitted.close();
        handoff.submit(submitted);
        // A committer that has ended takes the process with it.
        loop {
            if let Some(returned) = mailbox.take() {
                let outcome = returned.of_only_request();
                *batch = returned.batch;
                return Ok(outcome);
            }
            thread::sleep(LOOK_AGAIN);
        }
    }
}

impl Replayed {
    /// Appends the row of a line; false, and nothing is appended, when it is rejected.
    fn encode(&mut self, plan: &Plan, line: &ReplayedLine<'_>, batch: &mut Batch) -> bool {
        let has_address =
            plan.columns().iter().any(|column| column.source == Source::ClientAddress(AddressKind::Usual));
        let (fits, client_ip, as_stored) = match line.client {
            ReplayedClient::Address(address) => {
                let fits =
                    address.to_canonical().is_ipv4() || plan.require_room_for(Addresses::Any, Addresses::Any).is_ok();
                (fits, Some(address), None)
            }
            ReplayedClient::Hash(hash) => {
                (plan.require_room_for(Addresses::Hashed, Addresses::Ipv4).is_ok(), None, Some(hash))
            }
            // A row that ClickHouse has refused lost its address.
            ReplayedClient::Unknown => (!has_address || self.encoder.address_form().is_nothing(), None, None),
        };
        if !fits {
            return false;
        }
        let origin = Origin { client_ip, server_time_unix_ns: i64::from(line.second) * 1_000_000_000 };
        let (mark, mut report) = (batch.mark(), Report::default());
        let usual = as_stored.map(|hash| self.encoder.write_addresses(AddressForm::AsStored(hash)));
        let encoded = self.encoder.encode(line.line, &origin, batch, &mut report);
        if let Some(usual) = usual {
            self.encoder.write_addresses(usual);
        }
        let good = encoded.is_ok() && (report.accepted, report.rejected) == (1, 0);
        if !good {
            batch.roll_back(mark);
        }
        good
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BlockNumber, Exchange, Returned, SegmentNumber};
    use crate::handoff::Handoff;
    use crate::intake::budget::{BudgetLimits, ByteBudget};
    use crate::ndjson::EncodeLimits;
    use crate::schema::ColumnDescription;

    fn schema(column: &str, frozen: &[u8]) -> Option<SchemaVersion> {
        let column = ColumnDescription {
            name: column.to_owned(),
            type_name: "UInt8".into(),
            default_kind: String::new(),
            default_expression: String::new(),
        };
        Some(SchemaVersion::new(Plan::compile(&[column], "UTC").unwrap(), frozen.to_vec()))
    }

    /// What was in a batch.
    #[derive(Debug, PartialEq, Eq)]
    struct Stored {
        table: TableIndex,
        frozen: Vec<u8>,
        rows: Vec<u8>,
        key: identity::Id,
    }

    /// A committer that commits one batch.
    fn commit_one(handoff: Arc<Handoff>) -> thread::JoinHandle<Stored> {
        thread::spawn(move || {
            loop {
                if let Some(batch) = handoff.next() {
                    let (table, frozen, rows) = (batch.table, batch.frozen.to_vec(), batch.rows.bytes.clone());
                    let stored = Stored { table, frozen, rows, key: batch.keyed()[0].key.id };
                    let outcome = CommitOutcome::Committed { block: BlockNumber::first(SegmentNumber::new(1)) };
                    handoff.give_back(Returned { batch, outcome });
                    return stored;
                }
                thread::sleep(LOOK_AGAIN);
            }
        })
    }

    #[test]
    fn lines_are_stored_in_the_table_that_is_named_and_their_key_is_of_that_table() {
        let handoff = Arc::new(Handoff::new(Vec::new(), Arc::default()));
        let budget = ByteBudget::new(BudgetLimits { max: 1 << 20, request_max: 1 << 10 });
        let schemas = vec![schema("a", b"1"), None, schema("b", b"3")];
        let shared = Arc::new(Shared::of_tests(handoff.clone(), schemas, budget));
        let limits = EncodeLimits { line_bytes_max: 100, events_max: 10, encoded_bytes_max: 1000 };
        let table = |name: &str| ReplayTable {
            name: name.to_owned(),
            encoder: RowEncoder::new(Arc::new(Plan::none()), limits),
        };
        let replayer =
            Replayer::new(shared.clone(), String::new(), Arc::default(), [table("x"), table("y"), table("z")]);
        let line = |line| ReplayedLine { second: 0, client: ReplayedClient::Unknown, line };
        let lines = [line(&b"{\"a\":1,\"b\":2}"[..]), line(b"{\"a\":\"no\",\"b\":3}"), line(b"no")];
        let store = |table, name: &str, good: &[bool], frozen: &[u8], rows: &[u8]| {
            let (table, committer) = (TableIndex::new(table), commit_one(handoff.clone()));
            assert_eq!(replayer.store(table, b"k", &lines, false).unwrap(), good);
            let key = identity::of_request(&format!(" quarantine of {name}"), b"k");
            let stored = Stored { table, frozen: frozen.to_vec(), rows: rows.to_vec(), key };
            assert_eq!(committer.join().unwrap(), stored);
        };
        store(0, "x", &[true, false, false], b"1", &[1]);
        store(2, "z", &[true, true, false], b"3", &[2, 3]);
        for table in [1, 3].map(TableIndex::new) {
            assert_eq!(replayer.store(table, b"k", &lines, false), Err(TABLE_UNAVAILABLE));
        }
        shared.schemas.values()[0].publish(schema("b", b"4"));
        shared.schemas.values()[1].publish(schema("a", b"2"));
        store(0, "x", &[true, true, false], b"4", &[2, 3]);
        store(1, "y", &[true, false, false], b"2", &[1]);
    }
}
