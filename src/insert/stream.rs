//! The HTTP client of an inserter, which sends a block as the body of one request.
//!
//! The blocking client of `reqwest` reads a body in chunks of 8 KiB and passes each to another
//! thread. Measured under load, these thread switches cost more than half of the server's CPU time.
//! An inserter therefore drives the asynchronous client on its own thread, and passes it a whole
//! frame at a time. Nothing else runs on that runtime, so it may block on reads of the file.

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
use crate::clickhouse::client::{ClickHouse, ClientError, ReplyVerdict, causes, not_sent, provide_tls};
use crate::clickhouse::trust::Trust;
use crate::insert::compression::InsertCompression;
use crate::spool::BlockReader;

/// The HTTP client of one inserter.
pub struct InsertClient {
    runtime: Runtime,
    http: reqwest::Client,
    compression: InsertCompression,
}

impl InsertClient {
    /// Creates a client for the calling thread, with this compression of request bodies, that trusts
    /// the servers that `trust` does.
    ///
    /// # Errors
    ///
    /// If the runtime or the HTTP client can't be created.
    pub fn new(compression: InsertCompression, trust: &Trust) -> io::Result<Self> {
        provide_tls();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let http = crate::clickhouse::client::http_settings!(reqwest::Client::builder(), trust)
            // Keep no idle connections. Between two INSERTs the runtime does not run and would not
            // notice that ClickHouse closes a connection. A new connection per second costs little.
            .pool_max_idle_per_host(0)
            .build()
            .map_err(io::Error::other)?;
        Ok(Self { runtime, http, compression })
    }

    /// Sends an INSERT with the rows of `body`. [`ReplyVerdict`] defines its success.
    ///
    /// # Errors
    ///
    /// If ClickHouse does not answer, refuses, or gives no proof. If the block turns out to be damaged,
    /// the error is [`ClientError::Damaged`], whatever ClickHouse answered.
    pub fn insert(
        &self,
        server: &ClickHouse,
        request: &InsertRequest<'_>,
        mut body: BlockBody,
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
        body: BlockBody,
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
        let mut verdict = ReplyVerdict::new(response.status().as_u16(), response.headers(), request.query_id);
        while let Some(chunk) = response.chunk().await.map_err(|error| ClientError::NoAnswer(causes(&error)))? {
            verdict.read(&chunk);
        }
        verdict.of_insert(request.rows)
    }
}

/// An INSERT request without its body.
pub struct InsertRequest<'a> {
    /// The statement, the token and the settings, as URL parameters.
    pub parameters: &'a [(&'a str, &'a str)],
    /// The query id of the attempt, which the reply must repeat.
    pub query_id: &'a str,
    /// Number of rows; the reply must not report fewer.
    pub rows: u64,
    /// Time limit for the whole request.
    pub timeout: Duration,
    /// Called once, after nothing was sent or received for [`SILENCE`].
    pub is_silent: &'a dyn Fn(),
}

/// Time without a byte sent or received after which an attempt counts as silent and gives up its place.
const SILENCE: Duration = Duration::from_secs(10);

/// The format of a request body.
pub(super) enum BodyFormat {
    /// RowBinary rows, unchanged, behind this header.
    Rows(Vec<u8>),
    /// One block of columns, in Native.
    Block(NativeBlock),
}

/// The body of an INSERT.
///
/// A body that breaks off can't be taken for a complete one. An uncompressed body has a
/// `Content-Length`. A compressed body is sent in HTTP chunks, and lacks the last chunk (RFC 9112,
/// section 7.1) if it breaks off; ClickHouse refuses such a body.
pub struct BlockBody {
    /// Bytes that are sent before `rows`.
    front: VecDeque<Bytes>,
    rows: RowsToSend,
    /// The block that collects the rows before they are sent.
    block: Option<NativeBlock>,
    compressor: Option<Compressor>,
    /// Set if the block turns out to be damaged. The error of the HTTP client says only that the
    /// request broke off.
    damage: Arc<OnceLock<String>>,
    /// Pieces that were handed to the HTTP client: while they grow, the server reads.
    pieces: Arc<AtomicU64>,
}

/// A range of a block's rows.
struct RowsToSend {
    reader: Option<BlockReader>,
    /// Bytes that are still to be skipped before the range.
    skip: u64,
    /// Bytes of the range that are still to be read.
    left: u64,
}

impl BlockBody {
    /// Creates a body of the `bytes` of `rows` that begin at `offset`.
    pub(super) fn new(format: BodyFormat, rows: BlockReader, offset: u64, bytes: u64) -> Self {
        Self::of(format, VecDeque::new(), RowsToSend { reader: Some(rows), skip: offset, left: bytes })
    }

    /// Creates a body of rows in memory.
    pub(super) fn of_bytes(format: BodyFormat, rows: Bytes) -> Self {
        Self::of(format, VecDeque::from([rows]), RowsToSend { reader: None, skip: 0, left: 0 })
    }

    fn of(format: BodyFormat, mut front: VecDeque<Bytes>, rows: RowsToSend) -> Self {
        let block = match format {
            BodyFormat::Rows(header) => {
                front.push_front(header.into());
                None
            }
            BodyFormat::Block(block) => Some(block),
        };
        Self { front, rows, block, compressor: None, damage: Arc::default(), pieces: Arc::default() }
    }

    /// Sets the compression, and converts the rows to a block if the format is Native.
    fn prepare(&mut self, compression: InsertCompression) -> io::Result<()> {
        self.compressor = Compressor::new(compression)?;
        if let Some(mut block) = self.block.take() {
            while let Some(rows) = self.next_plain()? {
                block.push(&rows)?;
            }
            self.front = block.into_buffers()?.into();
        }
        Ok(())
    }

    /// The next bytes of the body, compressed if compression is on.
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
            Some(bytes) => Ok(Some(bytes)),
            None => self.rows.next(),
        }
    }

    /// Number of bytes that are still to be sent, without compression.
    fn left(&self) -> u64 {
        self.front.iter().map(|bytes| bytes.len() as u64).sum::<u64>() + self.rows.left
    }
}

impl RowsToSend {
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        while self.left > 0 {
            let rows = self.reader.as_mut().map(BlockReader::next_rows).transpose()?.flatten();
            let mut rows = rows.ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, "the block has fewer bytes than its seal says")
            })?;
            let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(rows.len());
            self.skip -= skipped as u64;
            let mut wanted = rows.split_off(skipped);
            wanted.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
            if !wanted.is_empty() {
                self.left -= wanted.len() as u64;
                return Ok(Some(wanted));
            }
        }
        Ok(None)
    }
}

impl Body for BlockBody {
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
        Poll::Ready(next.transpose().map(|bytes| bytes.map(Frame::data)))
    }

    fn size_hint(&self) -> SizeHint {
        if self.compressor.is_some() { SizeHint::default() } else { SizeHint::with_exact(self.left()) }
    }

    fn is_end_stream(&self) -> bool {
        self.compressor.is_none() && self.left() == 0
    }
}
