//! Simulated lives of a spool on a faulty disk, thousands of them, each from a seed.
//!
//! `SIM_SEEDS` is the number of lives, `SIM_FIRST_SEED` the first seed. A life that fails prints its
//! seed.

mod copied;
mod inserting;
mod lives;
mod submitting;

use std::collections::{BTreeMap, BTreeSet};

use crossbeam::channel::{Receiver, unbounded};

use super::chance::Chance;
use super::exchange::TestExchange;
use super::faulty::{End, Fault, FaultyDisk};
use super::flips;
use super::model::{Model, Promise};
use super::*;
use crate::batch::CommitOutcome;
use crate::limits;
use crate::spool::committer::Turn;
use crate::spool::journal::Journal;
use copied::Copied;
use inserting::read;

/// Length of `frozen`, chosen so that the identity has more than one page and can be torn.
const FROZEN: usize = 1500;

/// A step of the clock by which every key would be too old: 25 h, in seconds.
const CLOCK_STEP: i64 = 25 * 3600;

/// The kind of a life.
#[derive(Debug, Clone, Copy)]
struct Kind {
    /// With `written`: a loss of power may take events that are not sealed.
    durability: Durability,
    /// Bits flip while the process is not running.
    flips: bool,
    /// The disk is copied after a loss of power, and the copy is started too.
    copies: bool,
}

/// One process on the disk.
struct Process {
    committer: Committer<TestExchange>,
    keeper: Keeper,
    exchange: Arc<TestExchange>,
    sealed: Receiver<SealedBlock>,
    pool: Arc<SegmentPool>,
    layout: Arc<Layout>,
    metrics: Arc<SpoolMetrics>,
    /// Blocks that the inserters have.
    waiting: Vec<SealedBlock>,
    /// The records of each batch.
    under_way: BTreeMap<u64, Vec<u32>>,
    sequence: u64,
    /// The journal's generation at its start.
    generation: u64,
}

/// One life of a spool, over many processes.
struct Life {
    kind: Kind,
    chance: Chance,
    disk: FaultyDisk,
    config: SpoolConfig,
    model: Model,
    process: Option<Process>,
    /// Faults come at any time.
    is_faulty: bool,
    has_flipped: bool,
    /// Fewer writes, more failures and crashes: faults follow each other.
    is_rough: bool,
    node_id: Option<String>,
    /// A copy of the disk that will be started when the life is over.
    copy: Option<Copied>,
    /// True while a copy runs.
    is_copy: bool,
    /// The highest number of a segment that was ever seen.
    newest: SegmentNumber,
    /// How often each rare state was reached.
    reached: Reached,
}

type Reached = BTreeMap<&'static str, u64>;

impl Life {
    fn new(seed: u64, kind: Kind) -> Self {
        let (mut chance, mut count) = (Chance::new(seed), Chance::new(seed ^ 0x7AB));
        let batch_bytes = *chance.pick(&[8 << 10, 52 << 10]);
        let files = *chance.pick(&[2, 4, 1000]);
        let has_identities = chance.one_in(2);
        let table = |index: u64| SpoolTable {
            label: format!("t{index}"),
            batch_rows: *chance.pick(&[6, 25, 1000]),
            batch_bytes,
            batch_age: *chance.pick(&[Duration::ZERO, Duration::from_secs(3600)]),
            has_identities,
            bytes_max: None,
        };
        let tables: Vec<SpoolTable> = (0..*count.pick(&[1, 2, 5])).map(table).collect();
        let config = SpoolConfig {
            dir: "/disk/spool".into(),
            tables,
            node_id: None,
            spool_bytes_max: files * (batch_bytes + limits::SEGMENT_BLOCKS_BYTES) + kept_bytes(1 << 20),
            disk_free_min: 1,
            durability: kind.durability,
            idempotency_keys_max: 100_000,
            dedup_values_max: 100_000,
        };
        let disk = FaultyDisk::new(seed ^ 0xD15C);
        let is_rough = chance.one_in(4);
        let (model, process, node_id) = (Model::default(), None, None);
        let (is_faulty, has_flipped, copy, is_copy) = (false, false, None, false);
        let newest = SegmentNumber::default();
        Self {
            kind,
            chance,
            disk,
            config,
            model,
            process,
            is_faulty,
            has_flipped,
            is_rough,
            node_id,
            copy,
            is_copy,
            newest,
            reached: Reached::new(),
        }
    }

    /// Lives for `steps`; with `plan`, there is one fault at that call and no other.
    fn live(&mut self, steps: u64, plan: Option<(u64, Fault)>) {
        if let Some((nth, fault)) = plan {
            self.disk.plan(nth, fault);
        }
        self.start();
        for _ in 0..steps {
            self.is_faulty = plan.is_none();
            if self.is_faulty && self.chance.one_in(if self.is_rough { 2 } else { 4 }) {
                self.plan_fault();
            }
            self.step(plan.is_none());
            self.look_at_the_end();
        }
        self.drain();
        if let Some(copy) = self.copy.take() {
            self.live_on(copy);
        }
    }

    fn plan_fault(&mut self) {
        let nth = *self.chance.pick(&[1, 4, 15, 60]);
        let nth = 1 + self.chance.below(nth);
        let fault = *self.chance.pick(&Fault::ALL);
        self.disk.plan(nth, fault);
    }

    fn step(&mut self, may_end: bool) {
        let first = if self.is_rough && may_end && self.chance.one_in(2) { 14 } else { 0 };
        match first + self.chance.below(if may_end { 24 } else { 20 } - first) {
            0..8 => self.submit(),
            8..18 => self.insert_one(),
            18..20 => {
                self.turn();
            }
            20 => self.ends(End::Killed),
            21 => self.ends(End::PowerLost),
            22 => {
                self.stop();
            }
            _ => {
                let is_full = self.chance.one_in(2);
                self.disk.fill(is_full);
            }
        }
    }

    /// Starts a process, and another when it fails, until one runs.
    fn start(&mut self) {
        loop {
            self.disk.has_failed();
            let unsealed = flips::unsealed(&self.disk, &self.config.dir.join("log"));
            self.reach_if(unsealed > 1, "a start finds two segments without a seal");
            self.reach_if(self.disk.is_full(), "a start on a full disk");
            match Spool::open_on(Arc::new(self.disk.clone()), self.config.clone()) {
                Ok((spool, recovered)) => {
                    if self.disk.ended().is_none() && self.began(spool, recovered) {
                        return;
                    }
                }
                Err(error) => assert!(self.disk.has_failed(), "a start failed without a reason: {error}"),
            }
            let end = match self.disk.ended() {
                Some(end) => end,
                None if self.disk.is_read_only() || self.chance.one_in(3) => End::PowerLost,
                None => End::Killed,
            };
            self.forget(end);
        }
    }

    fn began(&mut self, mut spool: Spool, recovered: Recovered) -> bool {
        let mut waiting = recovered.blocks;
        while spool.postponed() > 0 && self.chance.one_in(2) {
            match spool.recover_postponed() {
                Ok(blocks) => waiting.extend(blocks),
                Err(_) if self.disk.ended().is_some() => return false,
                Err(_) => break,
            }
        }
        let found = self.quietly(|life| waiting.iter().map(|block| life.look_at(block)).collect::<Vec<_>>());
        if spool.postponed() == 0 {
            self.model.nothing_is_missing(&found, "after a start");
        }
        if !waiting.is_empty() {
            let node_id = spool.layout.node_id().to_owned();
            assert_eq!(*self.node_id.get_or_insert(node_id.clone()), node_id, "the node has another name");
        }
        if !self.kind.flips {
            let damaged = self.disk.files_in(&spool.layout.damaged_dir());
            let names: Vec<_> = damaged.iter().map(|(name, _)| name).collect();
            assert!(names.is_empty(), "damage was found where there is none: {names:?}");
        }
        // One flip for each state in which a segment is recovered.
        self.has_flipped = spool.postponed() > 0 || self.chance.one_in(2);
        let exchange = Arc::new(TestExchange::default());
        let (sender, sealed) = unbounded();
        let (pool, layout, metrics) = (spool.pool(), spool.layout.clone(), spool.metrics());
        let inserters = self.chance.below(3) as usize;
        let (committer, keeper) = Committer::new(spool, exchange.clone(), sender, inserters);
        assert!(metrics.newest() >= self.newest, "numbers of segments fell back");
        let (under_way, sequence) = (BTreeMap::new(), 0);
        let is_open = waiting.iter().any(|block| block.open_attempt().is_some());
        let is_cut = waiting.iter().any(|block| block.cut().is_some());
        self.reach_if(is_open, "an attempt is open at a start");
        self.reach_if(is_cut, "a block is cut at a start");
        let segments: BTreeSet<_> = waiting.iter().map(|block| block.number().segment).collect();
        self.reach_if(segments.len() < waiting.len(), "a start finds several blocks in a segment");
        let generation = layout.journal().generation();
        self.process = Some(Process {
            committer,
            keeper,
            exchange,
            sealed,
            pool,
            layout,
            metrics,
            waiting,
            under_way,
            sequence,
            generation,
        });
        true
    }

    fn reach_if(&mut self, is_reached: bool, state: &'static str) {
        *self.reached.entry(state).or_default() += u64::from(is_reached);
    }

    /// Inspects the spool without faults.
    fn quietly<T>(&mut self, look: impl FnOnce(&mut Self) -> T) -> T {
        let planned = self.disk.pause();
        let seen = look(self);
        self.disk.resume(planned);
        seen
    }

    /// The batches in a sealed block.
    fn look_at(&mut self, block: &SealedBlock) -> Vec<u32> {
        let read = read(block, Part::Rows).and_then(|rows| Ok((rows, read(block, Part::Rejected)?)));
        match read {
            Ok((rows, rejected)) => {
                let ids = self.model.look_at(&block.token(), &rows, &rejected);
                for id in &ids {
                    self.model.records[*id as usize].is_sealed = true;
                    assert_eq!(self.table_of(*id), block.table(), "batch {id} is among those of another table");
                }
                ids
            }
            Err(error) if self.kind.flips && error.kind() == io::ErrorKind::InvalidData => {
                assert!(self.model.is_damaged(block.number().segment.get()), "nothing has hit it: {error}");
                flips::readable(&self.disk, block.path(), block.number().index, true).into_iter().collect()
            }
            Err(error) => panic!("a sealed block can't be read: {error}"),
        }
    }

    /// The process ends, and the next one starts.
    fn ends(&mut self, end: End) {
        self.forget(end);
        if self.kind.copies && self.is_faulty && end == End::PowerLost && self.chance.one_in(2) {
            self.copy_the_disk();
        }
        if self.is_faulty && self.chance.one_in(3) {
            // A start that fails, too.
            self.plan_fault();
        }
        self.start();
    }

    fn forget(&mut self, end: End) {
        self.process = None;
        if end == End::PowerLost && self.kind.durability == Durability::Written {
            for record in self.model.records.iter_mut().filter(|record| !record.is_sealed) {
                record.promise = Promise::None;
            }
        }
        self.disk.restart(end);
        let steps = if self.is_faulty { [0, 0, -CLOCK_STEP, CLOCK_STEP] } else { [0; 4] };
        let by = *self.chance.pick(&steps);
        self.disk.step_clock(by);
        self.reach_if(by != 0, "the clock is wrong at a start");
        // At most once between two starts, and only if the disk has what is read: then the permitted
        // loss is known.
        let may_flip = self.kind.flips && self.is_faulty && end == End::PowerLost;
        if may_flip && !std::mem::replace(&mut self.has_flipped, true) {
            let (table_dir, log_dir) = (self.config.dir.join("t0"), self.config.dir.join("log"));
            let state_dir = self.config.dir.join("state");
            match self.chance.below(8) {
                0 | 1 => flips::flip_log(&self.disk, &table_dir.join("seen"), &mut self.model, &mut self.chance),
                2 => flips::flip_journal(&self.disk, &state_dir, &mut self.chance),
                _ => {
                    let planned = self.disk.pause();
                    let journal = Journal::load(Arc::new(self.disk.clone()), &state_dir, Vec::new()).unwrap();
                    let was_sent =
                        |epoch, number| journal.of_segment(epoch, number).iter().any(|(_, block)| block.was_sent);
                    flips::flip(&self.disk, &log_dir, was_sent, &mut self.model, &mut self.chance);
                    self.disk.resume(planned);
                }
            }
        }
    }

    fn look_at_the_end(&mut self) {
        let journal = self.process.as_ref().map(|process| (process.layout.journal(), process.generation));
        let is_broken = journal.is_some_and(|(journal, _)| journal.is_broken());
        let goes_on = journal.is_some_and(|(journal, generation)| journal.generation() > generation);
        self.reach_if(goes_on, "the journal goes on in its other file");
        self.reach_if(is_broken, "a sync of the journal fails");
        if let Some(end) = self.disk.ended() {
            self.ends(end);
        } else if is_broken {
            // A process whose sync fails ends itself.
            let end = if self.chance.one_in(2) { End::Killed } else { End::PowerLost };
            self.ends(end);
        } else if self.disk.is_read_only() && self.chance.one_in(3) {
            self.ends(End::PowerLost);
        }
    }

    /// Turns of committer and keeper until they are idle, with the outcomes noted in the model. False if the
    /// process has ended.
    fn turn(&mut self) -> bool {
        loop {
            let process = self.process.as_mut().unwrap();
            let (before, batches) = (self.disk.namings_and_syncs(), process.under_way.len() as u64);
            let outcome = process.committer.turn();
            let after = self.disk.namings_and_syncs();
            assert_eq!(after.0, before.0, "the committer makes, names or lengthens a file, or syncs a folder");
            assert!(after.1 - before.1 <= batches, "the committer syncs more than once a group");
            let is_waiting = matches!(outcome, Ok(Turn::Waiting));
            self.reach_if(is_waiting, "a batch waits for the next segment");
            self.reach_if(outcome.is_err(), "a sync of the committer fails");
            let process = self.process.as_mut().unwrap();
            // The keeper is late now and then.
            let kept = match outcome {
                Ok(Turn::Busy | Turn::Idle) if self.chance.one_in(4) => Ok(false),
                Ok(_) => process.keeper.turn(),
                Err(_) => Ok(false),
            };
            let cannot_seal = process.keeper.cannot_seal;
            self.reach_if(cannot_seal, "a segment can't be sealed");
            self.take_back();
            match outcome {
                Ok(Turn::Busy | Turn::Waiting) if kept.is_ok() && self.disk.ended().is_none() => {}
                Ok(Turn::Idle | Turn::Finished) if kept.is_ok() && self.disk.ended().is_none() => return true,
                _ => {
                    // The process ended itself or was killed; in both cases the page cache may show
                    // the next process bytes that are not on the disk.
                    let by_itself = if self.chance.one_in(2) { End::Killed } else { End::PowerLost };
                    self.ends(self.disk.ended().unwrap_or(by_itself));
                    return false;
                }
            }
        }
    }

    fn take_back(&mut self) {
        let Some(process) = &mut self.process else { return };
        while let Some(returned) = process.exchange.take() {
            let ids = process.under_way.remove(&returned.batch.sequence.get()).unwrap();
            let mut keyed = returned.batch.keyed().iter();
            for id in ids {
                let record = &mut self.model.records[id as usize];
                let request = if record.is_keyed { keyed.next() } else { None };
                match request.map_or(returned.outcome, |request| request.rule.outcome(returned.outcome)) {
                    CommitOutcome::Committed { .. } | CommitOutcome::Deduplicated { .. } => {}
                    CommitOutcome::Repeated { summary, .. } => {
                        *self.reached.entry("a request with a key is a repeat").or_default() += 1;
                        assert_eq!(summary, record.summary());
                    }
                    CommitOutcome::KeyReused | CommitOutcome::NoRepeat => panic!("the body is the same"),
                    CommitOutcome::Refused(_) => {
                        *self.reached.entry("a group is refused").or_default() += 1;
                        continue;
                    }
                }
                record.promise = Promise::Kept;
            }
        }
        let sealed: Vec<SealedBlock> = process.sealed.try_iter().collect();
        self.newest = self.newest.max(process.metrics.newest());
        if self.disk.ended().is_none() {
            self.quietly(|life| sealed.iter().for_each(|block| drop(life.look_at(block))));
        }
        if let Some(process) = &mut self.process {
            process.waiting.extend(sealed);
        }
    }

    /// An orderly stop; false if the process ended during it.
    fn stop(&mut self) -> bool {
        self.process.as_ref().unwrap().exchange.finish();
        let orderly = self.turn();
        if orderly {
            self.ends(End::Killed);
        }
        orderly
    }

    /// Ends all faults; everything goes to ClickHouse.
    fn drain(&mut self) {
        self.is_faulty = false;
        self.disk.heal();
        while !self.stop() {}
        for _ in 0..400 {
            if self.process.as_ref().unwrap().waiting.is_empty() {
                break;
            }
            self.insert_one();
        }
        let mut held = BTreeSet::new();
        for block in &self.process.as_ref().unwrap().waiting {
            assert!(self.kind.flips && self.model.is_damaged(block.number().segment.get()), "a block is never done");
            assert!(self.must_be_held(block), "what is readable of a block is never sent");
            held.extend(flips::readable(&self.disk, block.path(), block.number().index, true));
        }
        if self.model.everything_is_stored_once(&held) {
            let is_kept = !self.disk.files_in(&self.config.dir.join("damaged")).is_empty();
            let is_held = !self.process.as_ref().unwrap().waiting.is_empty();
            assert!(is_held || is_kept, "what is damaged is gone, and nobody was told");
        }
    }
}
