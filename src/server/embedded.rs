//! The embedded ClickHouse of `serve` and `drain`: started with them, started again when it ends by itself, and
//! ended with them.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::threads::{ServerError, spawn};
use crate::clickhouse::embedded::{Embedded, EmbeddedOptions, STOP_TIMEOUT};
use crate::config::Settings;

/// Pause between two looks at whether it still runs, and the longest before it is started again.
const LOOK_PAUSE: Duration = Duration::from_millis(500);
const START_AGAIN_PAUSE_MAX: Duration = Duration::from_secs(60);

/// An embedded ClickHouse that is kept running.
pub(super) struct KeptRunning {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// `None` while it is started again, and after the end.
    running: Option<Embedded>,
    is_over: bool,
}

impl KeptRunning {
    /// Starts the one of the settings, if they have one. Must be called from a thread that is not pinned: the child
    /// inherits its CPU affinity.
    ///
    /// # Errors
    ///
    /// If it can't be started, or the settings have no address for it.
    pub(super) fn start(settings: &Settings) -> Result<Option<Self>, ServerError> {
        let Some(path) = &settings.embedded else { return Ok(None) };
        let options = options(path, settings)?;
        let EmbeddedOptions { path, host, http_port } = &options;
        tracing::info!(path = %path.display(), host, http_port, "starting the embedded ClickHouse");
        let running = Some(Embedded::start(&options)?);
        let state = Arc::new(Mutex::new(State { running, is_over: false }));
        let kept = state.clone();
        spawn("embedded".into(), move || keep_running(&kept, &options))?;
        Ok(Some(Self { state }))
    }

    /// Ends it in order, and kills it at the deadline.
    pub(super) fn stop(self, deadline: Instant) {
        self.end(deadline.saturating_duration_since(Instant::now()));
    }

    fn end(&self, within: Duration) {
        let running = {
            let mut state = lock(&self.state);
            state.is_over = true;
            state.running.take()
        };
        // One that is being started ends with this process.
        if let Some(running) = running {
            running.stop(within);
        }
    }
}

impl Drop for KeptRunning {
    fn drop(&mut self) {
        self.end(STOP_TIMEOUT);
    }
}

fn options(path: &Path, settings: &Settings) -> Result<EmbeddedOptions, ServerError> {
    let url = settings.clickhouse_url.first().and_then(|url| reqwest::Url::parse(url).ok());
    let (host, http_port) = url
        .as_ref()
        .and_then(|url| Some((url.host_str()?.to_owned(), url.port_or_known_default()?)))
        .ok_or_else(|| ServerError("--embedded needs a --clickhouse-url with a host and a port".to_owned()))?;
    Ok(EmbeddedOptions { path: path.to_owned(), host, http_port })
}

fn keep_running(state: &Mutex<State>, options: &EmbeddedOptions) {
    let mut pause = LOOK_PAUSE;
    loop {
        thread::sleep(pause);
        {
            let mut state = lock(state);
            if state.is_over {
                return;
            }
            match state.running.as_mut().map(Embedded::try_wait) {
                Some(None) => {
                    pause = LOOK_PAUSE;
                    continue;
                }
                Some(Some(status)) => {
                    tracing::error!(%status, "the embedded ClickHouse has ended by itself; it is started again");
                    state.running = None;
                }
                None => {}
            }
        }
        match Embedded::start(options) {
            Ok(running) => {
                let mut state = lock(state);
                if state.is_over {
                    return;
                }
                tracing::info!(version = running.version(), "the embedded ClickHouse runs again");
                state.running = Some(running);
            }
            Err(error) => {
                pause = START_AGAIN_PAUSE_MAX.min(pause * 2);
                tracing::error!(%error, again_in = ?pause, "the embedded ClickHouse can't be started again");
            }
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // Each change of the state is one assignment.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
