//! What is written to standard error: rejected lines, what the command waits for, and on a terminal how far it is.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often the bar is drawn while nothing happens.
const TICK: Duration = Duration::from_millis(250);

/// The bar, which is drawn on a terminal only.
pub(super) struct Progress {
    bar: ProgressBar,
    /// Bytes that were read of the files, as they lie on the disk.
    read: Arc<AtomicU64>,
}

impl Progress {
    /// A bar for so many bytes; `None` if standard input is among the files.
    pub fn new(bytes: Option<u64>) -> Self {
        let (bar, template) = match bytes {
            Some(bytes) => (
                ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr()),
                "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}  {msg}",
            ),
            None => (
                ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()),
                "{spinner} {bytes} {bytes_per_sec}  {msg}",
            ),
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        if !bar.is_hidden() {
            bar.enable_steady_tick(TICK);
        }
        Self { bar, read: Arc::default() }
    }

    /// The counter of the bytes that were read.
    pub fn read(&self) -> &Arc<AtomicU64> {
        &self.read
    }

    /// Shows how many lines were accepted and rejected.
    pub fn show(&self, accepted: u64, rejected: u64) {
        self.bar.set_position(self.read.load(Relaxed));
        self.bar.set_message(match rejected {
            0 => format!("{accepted} accepted"),
            _ => format!("{accepted} accepted, {rejected} rejected"),
        });
    }

    /// Writes a line to standard error.
    pub fn say(&self, line: &str) {
        // Whoever read it may be gone.
        self.bar.suspend(|| drop(writeln!(io::stderr().lock(), "{line}")));
    }

    /// Takes the bar away.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}
