//! One request to the server: sent again, after a pause, until there is a reply that says what became of it.

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::Url;
use reqwest::blocking::{Client as HttpClient, Response};
use reqwest::header::{HeaderMap, HeaderValue};
use serde::Deserialize;

use super::printable;
use super::progress::Progress;
use crate::clickhouse::client::{causes, http_settings, provide_tls};
use crate::clickhouse::trust::Trust;
use crate::clock::unix_ms;
use crate::config::{ConfigError, SendArgs};

/// Bytes of a reply that are read.
const REPLY_BYTES_MAX: u64 = 4 << 20;

/// The first pause before a request is sent again; each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(200);

/// The longest pause, unless `Retry-After` asks for a longer one.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The longest `Retry-After` that is honoured.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(5);

/// How often a pause looks for the order to stop.
const LOOK: Duration = Duration::from_millis(50);

/// What became of a request.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// The server has taken it: so many lines were accepted, so many rejected, of which these are named.
    Taken(Reply),
    /// Nothing was stored, because it is too large or has too many bad lines: smaller ones may be taken.
    TooMuch(String),
    /// Nothing was stored, and sending it again would not help.
    Refused(String),
    /// The order to stop came before there was a reply.
    Stopped,
}

/// The body of a reply.
#[derive(Debug, Default, PartialEq, Deserialize)]
pub(super) struct Reply {
    /// Number of accepted lines.
    #[serde(default)]
    pub accepted: Option<u64>,
    /// Number of rejected lines.
    #[serde(default)]
    pub rejected: u64,
    /// The first of the rejected lines.
    #[serde(default)]
    pub errors: Vec<LineError>,
    /// The code of an error.
    #[serde(default)]
    pub error: Option<String>,
    /// Its sentence.
    #[serde(default)]
    pub message: Option<String>,
}

/// A rejected line.
#[derive(Debug, PartialEq, Deserialize)]
pub(super) struct LineError {
    /// Its number in the request, from 1.
    pub line: u64,
    /// The code.
    pub code: String,
    /// A sentence.
    pub message: String,
}

/// A client of the server's events.
pub(super) struct Client {
    http: HttpClient,
    url: Url,
    dry_url: Url,
    give_up_after: Duration,
    stop: Arc<AtomicBool>,
    progress: Arc<Progress>,
    /// What it has said that it waits for.
    said: Mutex<BTreeSet<u16>>,
}

impl Client {
    /// Prepares a client; does not connect yet.
    ///
    /// # Errors
    ///
    /// If a file of the arguments can't be read, or TLS can't be set up.
    pub fn new(arguments: &SendArgs, stop: &Arc<AtomicBool>, progress: &Arc<Progress>) -> Result<Self, ConfigError> {
        provide_tls();
        let wrong = |error: &dyn std::fmt::Display| ConfigError(error.to_string());
        let url = Url::parse(&arguments.url).map_err(|error| wrong(&error))?;
        let urls = std::slice::from_ref(&arguments.url);
        let trust = Trust::new(urls, "--ca-file", arguments.ca_file.as_deref()).map_err(|error| wrong(&error))?;
        let mut fields = HeaderMap::new();
        fields.insert("content-type", HeaderValue::from_static("application/x-ndjson"));
        if let Some(key) = arguments.write_key()? {
            let mut value = HeaderValue::from_str(&format!("Bearer {key}")).map_err(|error| wrong(&error))?;
            value.set_sensitive(true);
            fields.insert("authorization", value);
        }
        let http = http_settings!(HttpClient::builder(), &trust)
            .default_headers(fields)
            .user_agent(concat!("sluicegate-send/", env!("CARGO_PKG_VERSION")))
            .pool_max_idle_per_host(arguments.connections.get())
            .timeout(*arguments.timeout)
            .build()
            .map_err(|error| ConfigError(format!("the HTTP client can't be set up: {error}")))?;
        let mut dry_url = url.clone();
        let others: Vec<_> = url.query_pairs().filter(|(name, _)| !matches!(&**name, "ack" | "dry_run")).collect();
        dry_url.query_pairs_mut().clear().extend_pairs(others).append_pair("dry_run", "1");
        let (give_up_after, said) = (*arguments.give_up_after, Mutex::default());
        let (stop, progress) = (stop.clone(), progress.clone());
        Ok(Self { http, url, dry_url, give_up_after, stop, progress, said })
    }

    /// Sends lines under a key.
    pub fn send(&self, body: &Bytes, key: &str) -> Verdict {
        self.until_answered(&self.url, body, Some(key))
    }

    /// Asks which lines are bad; nothing is stored.
    pub fn ask(&self, body: &Bytes) -> Verdict {
        self.until_answered(&self.dry_url, body, None)
    }

    fn until_answered(&self, url: &Url, body: &Bytes, key: Option<&str>) -> Verdict {
        let begun = Instant::now();
        let mut pause = PAUSE_MIN;
        loop {
            if self.stop.load(Relaxed) {
                return Verdict::Stopped;
            }
            let request = self.http.post(url.clone()).body(body.clone());
            let request = key.into_iter().fold(request, |request, key| request.header("idempotency-key", key));
            let later = match request.send() {
                Ok(response) => match read(response) {
                    Reading::Verdict(verdict) => return verdict,
                    Reading::Later(later) => later,
                },
                Err(error) => Later { status: 0, after: None, reason: causes(&error) },
            };
            let wait = later.pause(pause, spread());
            if begun.elapsed() + wait > self.give_up_after {
                let Later { reason, .. } = later;
                let within = humantime::format_duration(self.give_up_after);
                return Verdict::Refused(format!("{url} did not take it within {within}: {reason}"));
            }
            self.say(url, &later);
            self.pause(wait);
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Says once for each cause that it waits.
    fn say(&self, url: &Url, later: &Later) {
        let is_new = self.said.lock().is_ok_and(|mut said| said.insert(later.status));
        if is_new {
            let within = humantime::format_duration(self.give_up_after);
            self.progress.say(&format!(
                "sluicegate send: waiting for {url}: {}; each request is sent again for up to {within}",
                later.reason
            ));
        }
    }

    fn pause(&self, wait: Duration) {
        let end = Instant::now() + wait;
        while !self.stop.load(Relaxed) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            thread::sleep(left.min(LOOK));
        }
    }
}

/// A request is to be sent again.
struct Later {
    /// The status of the reply; 0 without one.
    status: u16,
    /// What `Retry-After` says.
    after: Option<Duration>,
    reason: String,
}

impl Later {
    /// The pause before the next attempt; `spread` is from 0 to 1, so that not all clients come back at once.
    fn pause(&self, usual: Duration, spread: f64) -> Duration {
        let own = usual.mul_f64(0.5 + spread / 2.0);
        match self.after {
            Some(after) => (after.min(RETRY_AFTER_MAX) + own.min(after / 4)).max(own),
            None => own,
        }
    }
}

/// A number from 0 to 1.
fn spread() -> f64 {
    getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX))
}

/// A verdict, or none yet.
enum Reading {
    Verdict(Verdict),
    Later(Later),
}

/// What a response says.
fn read(response: Response) -> Reading {
    let status = response.status().as_u16();
    let after = response.headers().get("retry-after").and_then(|value| retry_after(value.to_str().ok()?, unix_ms()));
    let mut text = Vec::new();
    if let Err(error) = response.take(REPLY_BYTES_MAX).read_to_end(&mut text) {
        return Reading::Later(Later { status: 0, after: None, reason: format!("the reply broke off: {error}") });
    }
    judge(status, after, &text)
}

/// The time in `Retry-After`: seconds, or a date (RFC 9110, section 10.2.3). One that has passed is no time.
fn retry_after(value: &str, now_ms: u64) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = chrono::DateTime::parse_from_rfc2822(value).ok()?;
    let date_ms = u64::try_from(date.timestamp_millis()).ok()?;
    Some(Duration::from_millis(date_ms.saturating_sub(now_ms)))
}

fn judge(status: u16, after: Option<Duration>, text: &[u8]) -> Reading {
    let reply: Option<Reply> = sonic_rs::from_slice(text).ok();
    let reason = || match &reply {
        Some(Reply { error: Some(code), message: Some(message), .. }) => {
            printable(&format!("it answered {status} ({code}): {message}"))
        }
        _ => format!("it answered {status}"),
    };
    match status {
        408 | 429 | 500 | 502 | 503 | 504 => return Reading::Later(Later { status, after, reason: reason() }),
        _ => {}
    }
    Reading::Verdict(match (status, reply.as_ref().and_then(|reply| reply.error.as_deref())) {
        (413, _) | (422, Some("too_many_bad_lines")) => Verdict::TooMuch(reason()),
        (200 | 202 | 422, None) => match reply {
            Some(reply) if reply.accepted.is_some() => Verdict::Taken(reply),
            _ => Verdict::Refused(format!("it answered {status} with something else than the numbers of its lines")),
        },
        _ => Verdict::Refused(reason()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(status: u16, text: &str) -> Verdict {
        match judge(status, None, text.as_bytes()) {
            Reading::Verdict(verdict) => verdict,
            Reading::Later(later) => panic!("it is sent again: {}", later.reason),
        }
    }

    #[test]
    fn only_the_numbers_of_the_lines_prove_that_a_request_was_taken() {
        let taken = |status, text| matches!(verdict(status, text), Verdict::Taken(_));
        assert!(taken(200, "{\"accepted\":3,\"rejected\":0}"));
        assert!(taken(202, "{\"accepted\":3,\"rejected\":0,\"inserted\":false}"));
        let all_bad = "{\"accepted\":0,\"rejected\":1,\"errors\":[{\"line\":1,\"code\":\"c\",\"message\":\"m\"}]}";
        assert!(taken(422, all_bad));
        for text in ["", "{}", "<html>", "{\"accepted\":true}", "{\"error\":\"x\",\"message\":\"y\"}"] {
            assert!(matches!(verdict(200, text), Verdict::Refused(_)), "{text}");
        }
        let too_many =
            "{\"accepted\":0,\"rejected\":1001,\"errors\":[],\"error\":\"too_many_bad_lines\",\"message\":\"m\"}";
        assert!(matches!(verdict(422, too_many), Verdict::TooMuch(_)));
        assert!(matches!(verdict(413, "<html>"), Verdict::TooMuch(_)));
        let reused = "{\"error\":\"idempotency_key_reused\",\"message\":\"a\\u001bb\"}";
        let Verdict::Refused(said) = verdict(422, reused) else { panic!("it is refused") };
        assert_eq!(said, "it answered 422 (idempotency_key_reused): a\\u{1b}b");
        for status in [301, 400, 401, 403, 404, 405, 415] {
            assert!(matches!(verdict(status, ""), Verdict::Refused(_)));
        }
        for status in [408, 429, 500, 502, 503, 504] {
            assert!(matches!(judge(status, None, b""), Reading::Later(_)), "{status}");
        }
    }

    #[test]
    fn a_server_asks_for_seconds_or_for_a_date() {
        let now = 784_111_777_000;
        let of = |value: &str| retry_after(value, now).map(|after| after.as_secs());
        assert_eq!(of("120"), Some(120));
        assert_eq!(of(" 0 "), Some(0));
        assert_eq!(of("Sun, 06 Nov 1994 08:49:47 GMT"), Some(10));
        assert_eq!(of("Sun, 06 Nov 1994 08:49:27 GMT"), Some(0), "it has passed");
        for wrong in ["", "-1", "soon", "1.5", "Sun, 06 Nov 0000 08:49:37 GMT"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_pause_is_spread_and_never_shorter_than_the_server_asks_for() {
        let (second, minute) = (Duration::from_secs(1), Duration::from_mins(1));
        let pause = |after, spread| Later { status: 503, after, reason: String::new() }.pause(second, spread);
        assert_eq!(pause(None, 0.0), second / 2);
        assert_eq!(pause(None, 1.0), second);
        assert!(pause(Some(minute), 0.0) > minute && pause(Some(minute), 1.0) < minute * 2);
        assert!(pause(Some(Duration::from_secs(u64::MAX)), 1.0) < RETRY_AFTER_MAX * 2);
        assert_eq!(pause(Some(Duration::ZERO), 1.0), second);
        assert!((0..100).all(|_| (0.0..=1.0).contains(&spread())));
    }
}
