//! `sluicegate send`: posts files or a pipe of events to a running server, each line once.
//!
//! ```text
//! reader ─▶ batches ─▶ senders, one a connection ─▶ reports ─▶ this thread, in the order of the files
//! ```
//!
//! What makes a run repeatable is that [`batch`] cuts a file at the same places each time, and that [`contents`] makes
//! each request's `Idempotency-Key` of what is in the file up to the request's end. A request that is sent again, by
//! the same process or the next one, therefore has the same key and the same body, and the server stores it once.

mod batch;
mod client;
mod contents;
mod progress;
mod reader;
mod sender;
mod source;
mod state;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use self::batch::BatchLimits;
use self::client::Client;
use self::contents::Mark;
use self::progress::Progress;
use self::reader::{Event, Job, Message, Reader};
use self::sender::Report;
use self::state::State;
use crate::config::{ConfigError, SendArgs};

/// Batches that may be under way for each connection: those that wait for an earlier one to be reported included.
const WINDOW: usize = 4;

/// How often the order to stop is looked for while nothing happens.
const LOOK: Duration = Duration::from_millis(100);

/// The exit status of a second signal.
const EXIT_AT_ONCE: i32 = 130;

/// What a run came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All lines were accepted.
    AllAccepted,
    /// Some lines were rejected; all others were accepted.
    SomeRejected,
    /// Not everything could be sent.
    NotSent,
}

impl Outcome {
    /// The exit status.
    pub fn code(self) -> u8 {
        match self {
            Self::AllAccepted => 0,
            Self::SomeRejected => 1,
            Self::NotSent => 2,
        }
    }
}

/// Sends all files. Prints the rejected lines to standard error, and the numbers to `out`.
///
/// # Errors
///
/// If an argument is invalid, or a file that it names can't be opened; nothing was sent then. Or if the state can't be
/// written.
pub fn run(arguments: &SendArgs, out: &mut impl Write) -> Result<Outcome, ConfigError> {
    arguments.validate()?;
    let state = State::read(arguments)?;
    let stop = Arc::new(AtomicBool::new(false));
    let progress = Arc::new(Progress::new(total_bytes(arguments)?));
    let client = Arc::new(Client::new(arguments, &stop, &progress)?);
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        let installed = flag::register_conditional_shutdown(signal, EXIT_AT_ONCE, interrupted.clone())
            .and_then(|_| flag::register(signal, interrupted.clone()))
            .and_then(|_| flag::register(signal, stop.clone()));
        installed.map_err(|error| ConfigError(format!("signals can't be handled: {error}")))?;
    }

    let window = WINDOW.saturating_mul(arguments.connections.get());
    let ((jobs, todo), (messages, happened)) = (bounded::<Job>(0), unbounded());
    let (permit, permits) = bounded(window);
    for _ in 0..window {
        let _ = permit.try_send(());
    }
    let given = Arc::new(AtomicU64::new(0));
    let limits = BatchLimits {
        lines: arguments.batch_lines.get(),
        bytes: usize::try_from(arguments.batch_bytes.0).unwrap_or(usize::MAX),
    };
    let reader = Reader {
        files: arguments.files.clone(),
        marks: arguments.files.iter().map(|file| state.of(file)).collect(),
        salt: arguments.salt.clone(),
        limits,
        jobs,
        messages: messages.clone(),
        permits,
        stop: stop.clone(),
        read: progress.read().clone(),
        given: given.clone(),
    };
    // None of them is waited for: one may be reading a pipe into which nobody writes.
    spawn("reader", move || reader.run())?;
    for _ in 0..arguments.connections.get() {
        let (client, todo, messages) = (client.clone(), todo.clone(), messages.clone());
        spawn("sender", move || send_all(&client, &todo, &messages))?;
    }
    drop((todo, messages));

    let mut run =
        Run { arguments, state, progress: &progress, stop: &stop, tally: Tally::default(), failures: Vec::new() };
    run.listen(&happened, &given, &permit)?;
    run.end(interrupted.load(Relaxed), out)
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), ConfigError> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned.map(drop).map_err(|error| ConfigError(format!("a thread can't be started: {error}")))
}

/// The bytes of all files, each of which can be opened; `None` with standard input.
fn total_bytes(arguments: &SendArgs) -> Result<Option<u64>, ConfigError> {
    let mut total = Some(0_u64);
    for file in &arguments.files {
        if source::is_stdin(file) {
            total = None;
            continue;
        }
        // A pipe that was opened to look at it may not be opened again.
        let metadata = std::fs::metadata(file);
        let found = metadata
            .and_then(|found| if found.is_file() { std::fs::File::open(file).map(|_| found) } else { Ok(found) });
        let found = found.map_err(|error| ConfigError(format!("{}: {error}", file.display())))?;
        total = total.map(|total| total.saturating_add(found.len()));
    }
    Ok(total)
}

fn send_all(client: &Client, todo: &Receiver<Job>, messages: &Sender<Message>) {
    for Job { place, batch } in todo {
        let end = batch.end();
        let event = Event::Sent(sender::send(client, batch), end);
        if messages.send(Message { place, event }).is_err() {
            return;
        }
    }
}

/// The numbers of a run.
#[derive(Default)]
struct Tally {
    accepted: u64,
    rejected: u64,
}

/// What is known of a run.
struct Run<'a> {
    arguments: &'a SendArgs,
    state: State,
    progress: &'a Progress,
    stop: &'a AtomicBool,
    tally: Tally,
    /// The indexes of the files of which not everything was sent; a file may come twice.
    failures: Vec<usize>,
}

impl Run<'_> {
    /// Takes what happens in the order of the files, until all is done or the order to stop came.
    fn listen(
        &mut self,
        happened: &Receiver<Message>,
        given: &AtomicU64,
        permit: &Sender<()>,
    ) -> Result<(), ConfigError> {
        let (mut waiting, mut next, mut received) = (BTreeMap::new(), 0_u64, 0_u64);
        loop {
            let message = match happened.recv_timeout(LOOK) {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) if self.stop.load(Relaxed) && received == given.load(Relaxed) => break,
                Err(RecvTimeoutError::Timeout) => {
                    self.progress.show(self.tally.accepted, self.tally.rejected);
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            };
            received += 1;
            if let Event::Sent(Report { failed: Some(_), .. }, _) = &message.event {
                self.stop.store(true, Relaxed);
            }
            waiting.insert(message.place.sequence, message);
            while let Some(message) = waiting.remove(&next) {
                self.take(message)?;
                next += 1;
                let _ = permit.try_send(());
            }
        }
        Ok(())
    }

    fn take(&mut self, Message { place, event }: Message) -> Result<(), ConfigError> {
        let Some(file) = self.arguments.files.get(place.file) else { return Ok(()) };
        match event {
            Event::Sent(report, mark) => {
                self.tally.accepted += report.accepted;
                self.tally.rejected += report.rejected;
                for found in &report.rejections {
                    self.reject(file, found.line, &found.code, &found.message);
                }
                for sentence in &report.unnamed {
                    self.say(file, sentence);
                }
                match (&report.failed, report.stopped) {
                    (Some(reason), _) => self.fail(place.file, file, reason),
                    (None, true) => self.failures.push(place.file),
                    (None, false) => self.note(place.file, file, &mark)?,
                }
            }
            Event::TooLong(line, mark) => {
                self.tally.rejected += 1;
                let message = format!("The line has more than {} and was not sent.", self.arguments.batch_bytes);
                self.reject(file, line, "line_too_long", &message);
                self.note(place.file, file, &mark)?;
            }
            Event::Note(sentence) => self.say(file, &sentence),
            Event::Failed(reason) => self.fail(place.file, file, &reason),
        }
        self.progress.show(self.tally.accepted, self.tally.rejected);
        Ok(())
    }

    /// Notes how far a file was sent; behind a part that was not, nothing is noted.
    fn note(&mut self, index: usize, file: &Path, mark: &Mark) -> Result<(), ConfigError> {
        if self.failures.contains(&index) { Ok(()) } else { self.state.note(file, mark) }
    }

    fn reject(&self, file: &Path, line: u64, code: &str, message: &str) {
        self.progress.say(&format!("{}:{line}: {}: {}", file.display(), printable(code), printable(message)));
    }

    fn say(&self, file: &Path, sentence: &str) {
        self.progress.say(&format!("sluicegate send: {}: {}", file.display(), printable(sentence)));
    }

    fn fail(&mut self, index: usize, file: &Path, reason: &str) {
        self.say(file, reason);
        self.failures.push(index);
    }

    fn end(mut self, was_interrupted: bool, out: &mut impl Write) -> Result<Outcome, ConfigError> {
        self.progress.end();
        self.state.write()?;
        let Tally { accepted, rejected } = self.tally;
        // Whoever read it may be gone.
        let _ = writeln!(out, "{accepted} lines accepted, {rejected} rejected");
        if was_interrupted {
            let sentence = "sluicegate send: interrupted; the same command goes on, and nothing is stored twice";
            let _ = writeln!(io::stderr().lock(), "{sentence}");
        }
        Ok(match (was_interrupted || !self.failures.is_empty(), rejected) {
            (true, _) => Outcome::NotSent,
            (false, 0) => Outcome::AllAccepted,
            (false, _) => Outcome::SomeRejected,
        })
    }
}

/// A text of the server without control characters, which a terminal would obey.
fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() { printable.extend(character.escape_default()) } else { printable.push(character) }
    }
    printable
}
