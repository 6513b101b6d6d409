//! Reads the files one after the other, and hands their lines over in batches.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};

use crossbeam::channel::{Receiver, Sender};

use super::batch::{Batch, BatchLimits, Batcher, Piece};
use super::contents::Mark;
use super::sender::Report;
use super::source;

/// Lines to send, with their place in the order of everything.
pub(super) struct Job {
    pub place: Place,
    pub batch: Batch,
}

/// A place in the order of everything that happens, over all files.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// From 0, without a gap.
    pub sequence: u64,
    /// The index of the file.
    pub file: usize,
}

/// Something that happened.
pub(super) struct Message {
    pub place: Place,
    pub event: Event,
}

/// What happened.
pub(super) enum Event {
    /// A batch was sent, up to this mark.
    Sent(Report, Mark),
    /// A line is longer than a batch may be.
    TooLong(u64, Mark),
    /// Something that the operator should know.
    Note(String),
    /// The file can't be read any further.
    Failed(String),
}

/// What the reader works with.
pub(super) struct Reader {
    pub files: Vec<PathBuf>,
    /// How far each file was sent before.
    pub marks: Vec<Option<Mark>>,
    pub salt: String,
    pub limits: BatchLimits,
    pub jobs: Sender<Job>,
    pub messages: Sender<Message>,
    /// One for each message that may be under way.
    pub permits: Receiver<()>,
    pub stop: Arc<AtomicBool>,
    /// The counter of the bytes that were read.
    pub read: Arc<AtomicU64>,
    /// Number of jobs and messages that were handed over.
    pub given: Arc<AtomicU64>,
}

impl Reader {
    /// Reads all files, or until the order to stop comes.
    pub fn run(mut self) {
        // The first key of each file.
        let mut firsts: HashMap<String, PathBuf> = HashMap::new();
        let files = std::mem::take(&mut self.files);
        let marks = std::mem::take(&mut self.marks);
        for (index, (file, mark)) in files.iter().zip(marks).enumerate() {
            if let Err(reason) = self.read(index, file, mark, &mut firsts) {
                self.tell(index, Event::Failed(reason));
            }
            if self.stop.load(Relaxed) {
                return;
            }
        }
    }

    fn read(
        &self,
        index: usize,
        file: &Path,
        mark: Option<Mark>,
        firsts: &mut HashMap<String, PathBuf>,
    ) -> Result<(), String> {
        let open = || {
            let input = source::open(file, &self.read).map_err(|error| error.to_string())?;
            Ok::<_, String>(Batcher::new(input, &self.salt, self.limits))
        };
        let mut batcher = open()?;
        if let Some(mark) = &mark
            && !batcher.skip_to(mark).map_err(|error| error.to_string())?
        {
            let differs = format!("its first {} lines are not those that --state says were sent", mark.lines);
            if source::is_stdin(file) {
                return Err(differs);
            }
            self.tell(index, Event::Note(format!("{differs}: it is sent from its beginning")));
            batcher = open()?;
        }
        let mut is_first = true;
        loop {
            if self.stop.load(Relaxed) {
                return Ok(());
            }
            // What can't be read is told with the number of the line in front of it.
            let lines = batcher.lines();
            match batcher.next().map_err(|error| broken(lines, &error))? {
                None => return Ok(()),
                Some(Piece::TooLong(line, mark)) => self.tell(index, Event::TooLong(line, mark)),
                Some(Piece::Batch(batch)) => {
                    if std::mem::take(&mut is_first) {
                        self.look_at_first(index, file, &batch, firsts)?;
                    }
                    let Some(place) = self.place(index) else { return Ok(()) };
                    // The other side ends last.
                    let _ = self.jobs.send(Job { place, batch: *batch });
                }
            }
        }
    }

    /// Looks whether the file is NDJSON at all, and whether another one begins with the same lines.
    fn look_at_first(
        &self,
        index: usize,
        file: &Path,
        batch: &Batch,
        firsts: &mut HashMap<String, PathBuf>,
    ) -> Result<(), String> {
        if batch.first_line() == 1 && batch.array_lines().is_some() {
            return Err(
                "it begins with `[`: it is a JSON array, and not one object a line; `jq -c '.[]' FILE | sluicegate send -` \
                 sends its elements"
                    .to_owned(),
            );
        }
        if let Some(other) = firsts.insert(batch.key(), file.to_owned()) {
            self.tell(
                index,
                Event::Note(format!(
                    "it begins with the same {} lines as {}: what is the same from the beginning on has the same keys, and \
                     is stored once; in a run of its own, with --salt, all of it is stored",
                    batch.lines(),
                    other.display()
                )),
            );
        }
        Ok(())
    }

    fn tell(&self, file: usize, event: Event) {
        if let Some(place) = self.place(file) {
            let _ = self.messages.send(Message { place, event });
        }
    }

    /// The next place, once there is room for it; `None` if nobody listens any more.
    fn place(&self, file: usize) -> Option<Place> {
        self.permits.recv().ok()?;
        Some(Place { sequence: self.given.fetch_add(1, Relaxed), file })
    }
}

fn broken(lines: u64, error: &std::io::Error) -> String {
    format!(
        "it can't be read behind line {lines}: {error}; the lines in front of that were sent. Once it is whole, only with \
         --state are they not sent again"
    )
}
