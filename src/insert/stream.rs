//! Sends a segment to ClickHouse as the body of one request.
//!
//! `reqwest`'s blocking body is read in pieces of 8 KiB, each handed to another thread: measured,
//! these switches cost more than half of all CPU time of the server under load. So an inserter
//! drives `reqwest`'s other client on its own thread, and gives it a whole frame at a time. Nothing
//! else runs on that runtime; reading the file there holds up nobody.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use reqwest::header::CONTENT_ENCODING;
use tokio::runtime::Runtime;

use super::compression::Compressor;
use super::native::NativeBlock;
use crate::clickhouse::client::{ClickHouse, ClientError, ReplyVerdict, causes, not_sent};
use crate::insert::compression::InsertCompression;
use crate::spool::SegmentReader;

/// One inserter's way to ClickHouse.
pub struct InsertClient {
    runtime: Runtime,
    http: reqwest::Client,
    compression: InsertCompression,
}

impl InsertClient {
    /// A client for the calling thread, which compresses what it sends like that.
    ///
    /// # Errors
    ///
    /// When the operating system refuses what it needs.
    pub fn new(compression: InsertCompression) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let http = crate::clickhouse::client::http_settings!(reqwest::Client::builder())
            // Between two inserts nobody drives the runtime, so nobody would see that ClickHouse
            // has closed a connection; a new one a second costs nothing.
            .pool_max_idle_per_host(0)
            .build()
            .map_err(io::Error::other)?;
        Ok(Self { runtime, http, compression })
    }

    /// Sends an INSERT whose rows are `body`, and believes it only when everything says that it
    /// was done: see [`ReplyVerdict`].
    ///
    /// # Errors
    ///
    /// No answer, no proof, or a refusal with ClickHouse's code; or the segment can't be sent whole,
    /// whatever else came of that.
    pub fn insert(
        &self,
        server: &ClickHouse,
        request: &InsertRequest<'_>,
        mut body: SegmentBody,
    ) -> Result<(), ClientError> {
        let (damage, pieces) = (body.damage.clone(), body.pieces.clone());
        body.prepare(self.compression).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => ClientError::Damaged(error.to_string()),
            _ => ClientError::NoAnswer(error.to_string()),
        })?;
        let outcome = self.runtime.block_on(async {
            let exchange = self.exchange(server, request, body);
            let mut exchange = std::pin::pin!(exchange);
            let mut seen = pieces.load(Relaxed);
            loop {
                if let Ok(outcome) = tokio::time::timeout(SILENCE, &mut exchange).await {
                    return outcome;
                }
                let now = pieces.load(Relaxed);
                if now == seen {
                    (request.is_silent)();
                    return exchange.await;
                }
                seen = now;
            }
        });
        outcome.map_err(|error| damage.get().cloned().map_or(error, ClientError::Damaged))
    }

    async fn exchange(
        &self,
        server: &ClickHouse,
        request: &InsertRequest<'_>,
        body: SegmentBody,
    ) -> Result<(), ClientError> {
        let mut parameters = request.parameters.to_vec();
        parameters.push(("query_id", request.query_id));
        let mut post = self.http.post(server.address(&parameters)).timeout(request.timeout);
        for (name, value) in server.credentials() {
            post = post.header(name, value);
        }
        if let Some(coding) = self.compression.coding() {
            post = post.header(CONTENT_ENCODING, coding);
        }
        let mut response = post.body(reqwest::Body::wrap(body)).send().await.map_err(|error| not_sent(&error))?;
        let mut verdict = Verdict::new(response.status().as_u16(), response.headers(), request.query_id);
        while let Some(chunk) = response.chunk().await.map_err(|error| ClientError::NoAnswer(causes(&error)))? {
            verdict.read(&chunk);
        }
        verdict.of_insert(request.rows)
    }
}

/// One INSERT, but for its rows.
pub struct InsertRequest<'a> {
    /// The statement, the token and the settings, as parameters of the URL.
    pub parameters: &'a [(&'a str, &'a str)],
    /// Names the attempt; the reply has to name it too.
    pub query_id: &'a str,
    /// How many rows the reply must not say less than.
    pub rows: u64,
    /// How long all of it may take.
    pub timeout: Duration,
    /// Called once when nothing was sent and nothing came for so long that somebody else should
    /// insert meanwhile.
    pub is_silent: &'a dyn Fn(),
}

/// How long an attempt may be silent before another one takes its place.
const SILENCE: Duration = Duration::from_secs(10);

/// How rows are sent.
pub(super) enum BodyFormat {
    /// As they are, behind a header.
    Rows(Vec<u8>),
    /// As one block.
    Block(NativeBlock),
}

/// What an INSERT sends. Uncompressed its length is known before the first byte, so a body that
/// breaks off can't be taken for a whole one; compressed it goes out in HTTP chunks, the last of which
/// is missing then (RFC 9112, section 7.1), and ClickHouse refuses it.
pub struct SegmentBody {
    /// Whole pieces that come first.
    front: VecDeque<Bytes>,
    rows: RowsToSend,
    /// The block that the rows are to become before they are sent.
    block: Option<NativeBlock>,
    compressor: Option<Compressor>,
    /// Set when the rows turn out not to be what was sealed. Of what reading them has come to, the
    /// HTTP client says only that the exchange broke off.
    damage: Arc<OnceLock<String>>,
    /// Pieces that were handed to the HTTP client: while they grow, the server reads.
    pieces: Arc<AtomicU64>,
}

/// Some of a segment's rows.
struct RowsToSend {
    reader: Option<SegmentReader>,
    /// Bytes of the rows that come before those that are sent.
    skip: u64,
    left: u64,
}

impl SegmentBody {
    /// The `bytes` of `rows` that begin at `offset`.
    pub(super) fn new(shape: BodyFormat, rows: SegmentReader, offset: u64, bytes: u64) -> Self {
        Self::of(shape, VecDeque::new(), RowsToSend { reader: Some(rows), skip: offset, left: bytes })
    }

    /// RowsToSend that are in memory.
    pub(super) fn of_bytes(shape: BodyFormat, rows: Bytes) -> Self {
        Self::of(shape, VecDeque::from([rows]), RowsToSend { reader: None, skip: 0, left: 0 })
    }

    fn of(shape: BodyFormat, mut front: VecDeque<Bytes>, rows: RowsToSend) -> Self {
        let block = match shape {
            BodyFormat::Rows(header) => {
                front.push_front(header.into());
                None
            }
            BodyFormat::Block(block) => Some(block),
        };
        Self { front, rows, block, compressor: None, damage: Arc::default(), pieces: Arc::default() }
    }

    /// Makes a block of the rows, if they are to be sent as one.
    fn prepare(&mut self, compression: InsertCompression) -> io::Result<()> {
        self.compressor = Compressor::new(compression)?;
        if let Some(mut block) = self.block.take() {
            while let Some(piece) = self.next_plain()? {
                block.push(&piece)?;
            }
            self.front = block.into_pieces()?.into();
        }
        Ok(())
    }

    /// The next piece as it is sent.
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        while self.compressor.is_some() {
            let plain = self.next_plain()?;
            let Some(compressor) = &mut self.compressor else { break };
            let out = match plain {
                Some(plain) => compressor.push(&plain)?,
                None => self.compressor.take().map(Compressor::finish).transpose()?.unwrap_or_default(),
            };
            if !out.is_empty() {
                return Ok(Some(out));
            }
        }
        self.next_plain()
    }

    fn next_plain(&mut self) -> io::Result<Option<Bytes>> {
        match self.front.pop_front() {
            Some(piece) => Ok(Some(piece)),
            None => self.rows.next(),
        }
    }

    /// Bytes that are still to be sent, before they are compressed.
    fn left(&self) -> u64 {
        self.front.iter().map(|piece| piece.len() as u64).sum::<u64>() + self.rows.left
    }
}

impl RowsToSend {
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        while self.left > 0 {
            let piece = self.reader.as_mut().map(SegmentReader::next_piece).transpose()?.flatten();
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
        self.pieces.fetch_add(1, Relaxed);
        if let Err(error) = &next
            && error.kind() == io::ErrorKind::InvalidData
        {
            let _ = self.damage.set(error.to_string());
        }
        Poll::Ready(next.transpose().map(|piece| piece.map(Frame::data)))
    }

    fn size_hint(&self) -> SizeHint {
        if self.compressor.is_some() { SizeHint::default() } else { SizeHint::with_exact(self.left()) }
    }

    fn is_end_stream(&self) -> bool {
        self.compressor.is_none() && self.left() == 0
    }
}
