//! The log: lines go through a bounded queue to a thread that writes them to standard error.
//!
//! Whoever logs never waits for the reader of standard error, which may hang: what does not fit into
//! the queue is dropped and counted, and the count is written as soon as a line can be written again.

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::channel::{self, Receiver, Sender};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogFormat, LogLevel, Settings};
use crate::limits;

/// The queue, once the log is started.
static QUEUE: OnceLock<Queue> = OnceLock::new();

/// How often the end of the process looks whether the log is written.
const FLUSH_STEP: Duration = Duration::from_millis(2);

/// Starts the log of this process. A thread of its own writes it; without that thread, and if it was
/// started before, lines are written by who logs them.
pub fn start(settings: &Settings) {
    let terminal = io::stderr().is_terminal();
    let format = settings.log_format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json });
    let level = match settings.log_level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Trace => tracing::Level::TRACE,
    };
    let (queue, lines) = Queue::new(format);
    if QUEUE.set(queue).is_ok() {
        let writer = thread::Builder::new().name("log".into());
        let _ =
            writer.spawn(move || QUEUE.get().into_iter().for_each(|queue| queue.write_for_ever(&lines, io::stderr())));
    }
    flush_at_exit();
    // A panic's message must not wait for standard error either: the process has to end.
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!("{panic}");
        flush();
    }));
    // Nobody may read the log any more. That is no reason to end: what can't be written is dropped,
    // and not complained about where it can't be written either.
    let log = tracing_subscriber::fmt().with_max_level(level).log_internal_errors(false).with_writer(ToQueue);
    // What libraries say of their own steps is not what the levels `debug` and `trace` promise.
    let own = Targets::new().with_target("sluicegate", level).with_default(level.min(tracing::Level::INFO));
    match format {
        LogFormat::Text => log.with_ansi(terminal).with_target(false).finish().with(own).init(),
        LogFormat::Json => log.json().flatten_event(true).with_target(false).finish().with(own).init(),
    }
}

/// Has the log written at every end by `exit`, wherever it is called: after a failed sync of the spool
/// the last line says why.
#[allow(unsafe_code, reason = "atexit is a function of the C library")]
fn flush_at_exit() {
    extern "C" fn last() {
        flush();
    }
    // SAFETY: `last` takes nothing, returns nothing and does not panic.
    unsafe {
        libc::atexit(last);
    }
}

/// Waits a moment for the lines so far to be written: the process is about to end.
pub fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush();
    }
}

/// Says why the process ends, and waits a moment for it to be written.
pub fn say_last(sentence: &str) {
    match QUEUE.get() {
        Some(queue) => {
            queue.push(format!("{sentence}\n").as_bytes());
            queue.flush();
        }
        None => eprintln!("{sentence}"),
    }
}

/// Lines on their way to standard error.
struct Queue {
    lines: Sender<Box<[u8]>>,
    waiting_bytes: AtomicUsize,
    /// Lines that are neither written nor dropped.
    waiting: AtomicUsize,
    lost: AtomicU64,
    format: LogFormat,
}

impl Queue {
    fn new(format: LogFormat) -> (Self, Receiver<Box<[u8]>>) {
        let (lines, receiver) = channel::bounded(limits::LOG_LINES_MAX);
        let queue = Self {
            lines,
            waiting_bytes: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
            format,
        };
        (queue, receiver)
    }

    /// Queues a line, or counts it as lost.
    fn push(&self, line: &[u8]) {
        let fits = self.waiting_bytes.fetch_add(line.len(), SeqCst) + line.len() <= limits::LOG_BYTES_MAX;
        self.waiting.fetch_add(1, SeqCst);
        if !fits || self.lines.try_send(line.into()).is_err() {
            self.done(line.len());
            self.lost.fetch_add(1, SeqCst);
        }
    }

    fn done(&self, bytes: usize) {
        self.waiting_bytes.fetch_sub(bytes, SeqCst);
        self.waiting.fetch_sub(1, SeqCst);
    }

    fn write_for_ever(&self, lines: &Receiver<Box<[u8]>>, mut out: impl Write) {
        for line in lines {
            let written = out.write_all(&line);
            let lost = self.lost.swap(0, SeqCst);
            if lost > 0 {
                // Straight to where it is written: through the queue it might be lost as well.
                let _ = written.and_then(|()| out.write_all(self.loss(lost).as_bytes()));
            }
            self.done(line.len());
        }
    }

    /// The line that says how many lines are lost.
    fn loss(&self, lost: u64) -> String {
        let time = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
        let sentence = "lines of the log are lost: standard error was not read";
        match self.format {
            LogFormat::Text => format!("{time}  WARN {sentence} lost={lost}\n"),
            LogFormat::Json => {
                format!("{{\"timestamp\":\"{time}\",\"level\":\"WARN\",\"message\":\"{sentence}\",\"lost\":{lost}}}\n")
            }
        }
    }

    fn flush(&self) {
        let deadline = Instant::now() + limits::LOG_FLUSH_MAX;
        while self.waiting.load(SeqCst) > 0 && Instant::now() < deadline {
            thread::sleep(FLUSH_STEP);
        }
    }
}

/// Makes a writer for each line, which puts it into the queue.
struct ToQueue;

impl MakeWriter<'_> for ToQueue {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        Self
    }
}

impl Write for ToQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match QUEUE.get() {
            Some(queue) => {
                queue.push(line);
                Ok(line.len())
            }
            None => io::stderr().write(line),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc;

    use super::*;

    /// A reader of standard error that takes a line only when the test lets it.
    struct Reader {
        may_read: mpsc::Receiver<()>,
        read: mpsc::Sender<String>,
    }

    impl Write for Reader {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let _ = self.may_read.recv();
            let _ = self.read.send(String::from_utf8_lossy(line).into_owned());
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn who_logs_never_waits_and_what_is_lost_is_said() {
        let (queue, lines) = Queue::new(LogFormat::Text);
        let queue = Arc::new(queue);
        let (let_read, may_read) = mpsc::channel();
        let (read, has_read) = mpsc::channel();
        let writer = queue.clone();
        thread::spawn(move || writer.write_for_ever(&lines, Reader { may_read, read }));
        // Were the bound not kept, memory would be the only one; did it wait, the test would hang.
        let count = 3 * limits::LOG_LINES_MAX;
        (0..count).for_each(|number| queue.push(format!("line {number}\n").as_bytes()));
        queue.push(&vec![b'x'; limits::LOG_BYTES_MAX + 1]);
        assert!(queue.waiting.load(SeqCst) <= limits::LOG_LINES_MAX + 1);
        queue.flush();
        drop(let_read);
        assert_eq!(has_read.recv().unwrap(), "line 0\n");
        let sentence = has_read.recv().unwrap();
        let lost: usize = sentence.trim().rsplit('=').next().unwrap().parse().unwrap();
        assert!(lost > limits::LOG_LINES_MAX && sentence.contains("lost"), "{sentence}");
        // One of those is the line that is too long.
        let rest = (1..count + 1 - lost).map(|_| has_read.recv().unwrap());
        let numbers: Vec<usize> = rest.map(|line| line.trim()["line ".len()..].parse().unwrap()).collect();
        assert!(numbers.is_sorted(), "{numbers:?}");
        queue.flush();
        assert_eq!((queue.waiting.load(SeqCst), queue.waiting_bytes.load(SeqCst)), (0, 0));
        queue.push(b"again\n");
        assert_eq!(has_read.recv().unwrap(), "again\n");
    }
}
