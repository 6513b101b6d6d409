//! Sends a segment to ClickHouse as the body of one request.
//!
//! `reqwest`'s blocking body is read in pieces of 8 KiB, each handed to another thread: measured,
//! these switches cost more than half of all CPU time of the server under load. So an inserter
//! drives `reqwest`'s other client on its own thread, and gives it a whole frame at a time. Nothing
//! else runs on that runtime; reading the file there holds up nobody.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::runtime::Runtime;

use super::client::{ClickHouse, ClientError, Verdict, causes, not_sent};
use crate::spool::SegmentReader;

/// One inserter's way to ClickHouse.
pub struct InsertClient {
    runtime: Runtime,
    http: reqwest::Client,
}

impl InsertClient {
    /// A client for the calling thread.
    ///
    /// # Errors
    ///
    /// When the operating system refuses what it needs.
    pub fn new() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let http = super::client::http_settings!(reqwest::Client::builder())
            // Between two inserts nobody drives the runtime, so nobody would see that ClickHouse
            // has closed a connection; a new one a second costs nothing.
            .pool_max_idle_per_host(0)
            .build()
            .map_err(io::Error::other)?;
        Ok(Self { runtime, http })
    }

    /// Sends an INSERT whose rows are `body`, and believes it only when everything says that it
    /// was done: see [`Verdict`].
    ///
    /// # Errors
    ///
    /// No answer, or a refusal with ClickHouse's code; or the segment can't be sent whole, whatever
    /// else came of that.
    pub fn insert(
        &self,
        server: &ClickHouse,
        parameters: &[(&str, &str)],
        body: SegmentBody,
        timeout: Duration,
    ) -> Result<(), ClientError> {
        let damage = body.damage.clone();
        let outcome = self.runtime.block_on(async {
            let request = self.http.post(server.address(parameters)).timeout(timeout);
            let request =
                server.credentials().into_iter().fold(request, |request, (name, value)| request.header(name, value));
            let body = reqwest::Body::wrap(body);
            let mut response = request.body(body).send().await.map_err(|error| not_sent(&error))?;
            let mut verdict = Verdict::new(response.status().as_u16(), response.headers());
            while let Some(chunk) = response.chunk().await.map_err(|error| ClientError::NoAnswer(causes(&error)))? {
                verdict.read(&chunk);
            }
            verdict.of_insert()
        });
        outcome.map_err(|error| damage.get().cloned().map_or(error, ClientError::Damaged))
    }
}

/// A header and then rows, with a length that is known before the first byte: a body that breaks
/// off can't be taken for a whole one.
pub struct SegmentBody {
    header: Option<Bytes>,
    rows: Option<SegmentReader>,
    /// Bytes of the rows that come before those that are sent.
    skip: u64,
    left: u64,
    /// Set when the rows turn out not to be what was sealed. Of what reading them has come to, the
    /// HTTP client says only that the exchange broke off.
    damage: Arc<OnceLock<String>>,
}

impl SegmentBody {
    /// The `bytes` of `rows` that begin at `offset`.
    pub fn new(header: Vec<u8>, rows: SegmentReader, offset: u64, bytes: u64) -> Self {
        let left = header.len() as u64 + bytes;
        Self { header: Some(header.into()), rows: Some(rows), skip: offset, left, damage: Arc::default() }
    }

    /// A header and rows that are in memory.
    pub fn of_bytes(bytes: Vec<u8>) -> Self {
        let left = bytes.len() as u64;
        Self { header: Some(bytes.into()), rows: None, skip: 0, left, damage: Arc::default() }
    }

    fn next(&mut self) -> io::Result<Option<Bytes>> {
        if let Some(header) = self.header.take() {
            self.left = self.left.saturating_sub(header.len() as u64);
            return Ok(Some(header));
        }
        while self.left > 0 {
            let piece = self.rows.as_mut().map(SegmentReader::next_piece).transpose()?.flatten();
            let mut piece = piece.ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, "a segment has another length than its seal says")
            })?;
            let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(piece.len());
            self.skip -= skipped as u64;
            let mut wanted = piece.split_off(skipped);
            wanted.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
            if !wanted.is_empty() {
                self.left -= wanted.len() as u64;
                return Ok(Some(wanted));
            }
        }
        Ok(None)
    }
}

impl Body for SegmentBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let next = self.next();
        if let Err(error) = &next
            && error.kind() == io::ErrorKind::InvalidData
        {
            let _ = self.damage.set(error.to_string());
        }
        Poll::Ready(next.transpose().map(|piece| piece.map(Frame::data)))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0 && self.header.is_none()
    }
}
