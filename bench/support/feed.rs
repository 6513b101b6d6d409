//! The committer without HTTP: prepared batches go round between it and threads that are workers
//! but for their sockets.

// Each benchmark is a crate of its own and uses its share of this.
#![allow(dead_code)]

use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};
use sluicegate::batch::{Batch, CommitOutcome, Returned, Sequence};
use sluicegate::handoff::{Handoff, Mailbox};
use sluicegate::limits::BATCHES_PER_WORKER;
use sluicegate::spool::{Committer, Durability, SealedBlock, SegmentPool, Spool, SpoolConfig, SpoolTable};

const WAKE: Token = Token(0);

/// What the blocks say about their columns.
const FROZEN: &[u8] = b"frozen";

/// How the committer is fed.
pub struct Feed<'a> {
    /// A folder on a real file system.
    pub folder: &'a Path,
    /// What an acknowledgement means.
    pub durability: Durability,
    /// Bytes that seal a block.
    pub batch_bytes: u64,
    /// Threads that feed it, each with all the batches that a worker has.
    pub workers: usize,
    /// Where the committer's thread runs, and where the others do; `None` leaves it to the kernel.
    pub cores: Option<(usize, usize)>,
}

/// What came of it.
pub struct Fed {
    /// Batches that were committed.
    pub batches: u64,
    /// From the first batch to the last outcome.
    pub elapsed: Duration,
    /// CPU time of the committer's thread.
    pub cpu: Duration,
}

impl Feed<'_> {
    /// Hands over batches that `prepare` makes, while `more` says so: it gets the number of those
    /// handed over and the time since the first. `sealed` gets each block, for the pool or not.
    pub fn run(
        &self,
        prepare: impl Fn() -> Result<Batch, String>,
        more: impl Fn(u64, Duration) -> bool + Sync,
        mut sealed: impl FnMut(SealedBlock, &SegmentPool) -> std::io::Result<()> + Send,
    ) -> Result<Fed, Box<dyn Error>> {
        let (spool, _) = Spool::open(self.config())?;
        let pool = spool.pool();
        let polls = (0..self.workers).map(|_| Poll::new()).collect::<Result<Vec<_>, _>>()?;
        let mailboxes = polls.iter().map(|poll| Mailbox::new(poll.registry(), WAKE)).collect::<Result<Vec<_>, _>>()?;
        let handoff = Arc::new(Handoff::new(mailboxes, Arc::default()));
        let (sender, blocks) = crossbeam::channel::unbounded();
        let frozen: Arc<[u8]> = FROZEN.into();
        let (committer, keeper) = Committer::new(spool, handoff.clone(), sender, 1);
        let mut batches = Vec::new();
        for worker in 0..self.workers {
            let mut home = Vec::new();
            for _ in 0..BATCHES_PER_WORKER {
                let mut batch = prepare()?;
                (batch.worker, batch.frozen) = (worker, frozen.clone());
                home.push(batch);
            }
            batches.push(home);
        }
        let handed_over = AtomicU64::new(0);
        let begun = Instant::now();
        thread::scope(|scope| {
            scope.spawn(|| keeper.run());
            let committing = scope.spawn(|| {
                pin(self.cores.map(|(committer, _)| committer));
                let before = cpu_time()?;
                committer.run();
                Ok::<_, Box<dyn Error + Send + Sync>>(cpu_time()?.saturating_sub(before))
            });
            let taking = scope.spawn(|| blocks.iter().try_for_each(|block| sealed(block, &pool)));
            let workers: Vec<_> = polls
                .into_iter()
                .zip(batches)
                .enumerate()
                .map(|(worker, (poll, home))| {
                    let (handoff, more, handed_over) = (&handoff, &more, &handed_over);
                    scope.spawn(move || {
                        pin(self.cores.map(|(_, others)| others));
                        let next = || more(handed_over.fetch_add(1, Relaxed), begun.elapsed());
                        go_round(worker, poll, handoff, home, next).map_err(|error| error.to_string())
                    })
                })
                .collect();
            let batches: Vec<_> = workers.into_iter().map(|worker| worker.join().expect("a worker")).collect();
            let elapsed = begun.elapsed();
            handoff.finish();
            let cpu = committing.join().expect("the committer").map_err(|error| error.to_string())?;
            taking.join().expect("what takes the blocks")?;
            let batches = batches.into_iter().sum::<Result<u64, String>>()?;
            Ok(Fed { batches, elapsed, cpu })
        })
    }

    fn config(&self) -> SpoolConfig {
        SpoolConfig {
            dir: self.folder.to_owned(),
            tables: vec![SpoolTable {
                label: "events".into(),
                batch_rows: 500_000,
                batch_bytes: self.batch_bytes,
                batch_age: Duration::from_secs(1),
                has_identities: false,
                bytes_max: None,
            }],
            node_id: Some("bench".into()),
            spool_bytes_max: 10 << 30,
            disk_free_min: 1 << 30,
            durability: self.durability,
            idempotency_keys_max: 1000,
            dedup_values_max: 1000,
        }
    }
}

/// One worker, but for its sockets: hands over what comes back, and sleeps as a worker does.
fn go_round(
    worker: usize,
    mut poll: Poll,
    handoff: &Handoff,
    mut home: Vec<Batch>,
    next: impl Fn() -> bool,
) -> Result<u64, Box<dyn Error>> {
    let mailbox = handoff.mailbox(worker).ok_or("a mailbox is missing")?;
    let mut events = Events::with_capacity(4);
    let (mut sequence, mut committed, mut goes_on) = (0, 0, true);
    while goes_on || committed < sequence {
        while let Some(mut batch) = home.pop().filter(|_| goes_on) {
            goes_on = next();
            if goes_on {
                sequence += 1;
                batch.sequence = Sequence::new(sequence);
                handoff.submit(batch);
            }
        }
        if mailbox.may_sleep() {
            handoff.worker_sleeps();
            poll.poll(&mut events, Some(Duration::from_millis(250)))?;
        }
        mailbox.awake();
        while let Some(Returned { batch, outcome }) = mailbox.take() {
            let CommitOutcome::Committed { .. } = outcome else {
                return Err(format!("a batch came back as {outcome:?}").into());
            };
            committed += 1;
            home.push(batch);
        }
    }
    Ok(committed)
}

fn pin(core: Option<usize>) {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    if let Some(core) = core.and_then(|core| cores.get(core)) {
        core_affinity::set_for_current(*core);
    }
}

/// Of this thread so far.
fn cpu_time() -> Result<Duration, Box<dyn Error + Send + Sync>> {
    let account = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = account.split(' ').next().unwrap_or_default();
    Ok(Duration::from_nanos(nanoseconds.parse()?))
}
