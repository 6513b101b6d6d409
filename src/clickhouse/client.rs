//! A client of ClickHouse's HTTP interface.

use std::fmt;
use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use reqwest::Url;
use reqwest::blocking::{Client, Response};
use reqwest::header::HeaderMap;

use super::trust::Trust;
use crate::clock::unix_ms;

/// Time limit of a query about tables and settings.
const QUERY_TIMEOUT: Duration = Duration::from_secs(30);

/// The most bytes that are read of the result of a query. The columns of a wide table need far fewer.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// The most bytes that are kept of the front of an error message.
const FRONT_BYTES_MAX: usize = 4 << 10;

/// The most bytes that are kept of the end of an error message, where ClickHouse names the operation.
const END_BYTES_MAX: usize = 2 << 10;

/// The most bytes that are read of an error message.
const ERROR_BYTES_MAX: u64 = 1 << 20;

/// The error of a query or an INSERT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientError {
    /// There was no connection, so nothing was sent.
    NoConnection(String),
    /// There was no answer, because of a time-out or a broken connection. An INSERT may have taken
    /// effect.
    NoAnswer(String),
    /// The answer was not a success.
    Refused {
        /// HTTP status; may be 200 if a header has an exception code.
        status: u16,
        /// ClickHouse's error code, if the answer has one.
        code: Option<u32>,
        /// The body, or its front and its end.
        message: String,
    },
    /// The answer may not be ClickHouse's answer to this request: it may come from a proxy, or belong to
    /// another request. An INSERT may have taken effect.
    Unproven(String),
    /// The block is damaged. The INSERT was broken off before its end, so ClickHouse has stored none
    /// of it.
    Damaged(String),
    /// ClickHouse answered a repeat with success but has none of the rows; see `insert::presence`.
    Absent(String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoConnection(reason) => write!(f, "no connection to ClickHouse: {reason}"),
            Self::NoAnswer(reason) => write!(f, "no answer from ClickHouse: {reason}"),
            Self::Refused { status, message, .. } if message.is_empty() => {
                write!(f, "status {status} without a reason")
            }
            Self::Refused { code: None, status, message } => {
                write!(f, "status {status}, not from ClickHouse: {}", first_line(message))
            }
            Self::Refused { message, .. } => write!(f, "ClickHouse: {}", first_line(message)),
            Self::Unproven(reason) => write!(f, "an answer that proves nothing: {reason}"),
            Self::Damaged(reason) | Self::Absent(reason) => write!(f, "{reason}"),
        }
    }
}

impl std::error::Error for ClientError {}

/// Error codes of temporary conditions: time-outs, quotas, concurrent queries, network, memory, read-only
/// replicas, Keeper, a shutdown, load.
const PASSING: [u32; 16] = [159, 201, 202, 203, 209, 210, 236, 241, 242, 279, 319, 394, 425, 439, 745, 999];

impl ClientError {
    /// True if the same query may succeed later: ClickHouse is away or overloaded, or a proxy answered in
    /// its place.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Refused { code: Some(code), .. } => PASSING.contains(code),
            Self::Refused { code: None, status, .. } => matches!(status, 408 | 425 | 429 | 500..),
            Self::Damaged(_) | Self::Absent(_) => false,
            Self::NoConnection(_) | Self::NoAnswer(_) | Self::Unproven(_) => true,
        }
    }

    /// ClickHouse's error code, if the answer has one.
    pub fn code(&self) -> Option<u32> {
        if let Self::Refused { code, .. } = self { *code } else { None }
    }

    /// True if there was no answer, so that another server or a later attempt may give one.
    pub fn is_no_answer(&self) -> bool {
        matches!(self, Self::NoConnection(_) | Self::NoAnswer(_) | Self::Unproven(_))
    }
}

/// Settings of both `reqwest` builders: who is trusted, no proxy from the environment, and no redirects.
macro_rules! http_settings {
    ($builder:expr, $trust:expr) => {
        $crate::clickhouse::trust::trusting!($builder, $trust)
            .connect_timeout(std::time::Duration::from_secs(5))
            // Detect a dead host, which acknowledges neither data nor keepalive probes.
            .tcp_keepalive(std::time::Duration::from_secs(10))
            .tcp_keepalive_interval(std::time::Duration::from_secs(5))
            .tcp_user_timeout(std::time::Duration::from_secs(20))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .tcp_nodelay(true)
    };
}
pub(crate) use http_settings;

/// Installs the process-wide TLS provider, which every HTTP client needs. Further calls have no
/// effect.
pub fn provide_tls() {
    #[cfg(feature = "tls")]
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// A client of one ClickHouse server.
#[derive(Clone)]
pub struct ClickHouse {
    query_timeout: Duration,
    http: Client,
    url: Url,
    user: String,
    password: Option<String>,
}

/// The addresses of the servers, and the credentials.
#[derive(Clone)]
pub struct ClientConfig {
    /// `--clickhouse-url`, in order.
    pub urls: Vec<String>,
    /// `--clickhouse-user`.
    pub user: String,
    /// The password; never printed.
    pub password: Option<String>,
    /// Who may vouch for the servers of `https://` URLs.
    pub trust: Trust,
}

impl ClickHouse {
    /// Creates a client per URL; the clients share one connection pool. Does not connect yet.
    ///
    /// # Errors
    ///
    /// If a URL is invalid, or TLS can't be set up.
    pub fn connect(config: &ClientConfig) -> io::Result<Vec<Self>> {
        provide_tls();
        let http = http_settings!(Client::builder(), &config.trust)
            .build()
            .map_err(|error| io::Error::other(format!("the HTTP client can't be set up: {error}")))?;
        let client = |url: &String| {
            let url = Url::parse(url).map_err(|error| io::Error::other(format!("--clickhouse-url {url}: {error}")))?;
            Ok(Self {
                query_timeout: QUERY_TIMEOUT,
                http: http.clone(),
                url,
                user: config.user.clone(),
                password: config.password.clone(),
            })
        };
        config.urls.iter().map(client).collect()
    }

    /// A client of the same server with another time limit for queries.
    #[must_use]
    pub fn within(&self, query_timeout: Duration) -> Self {
        Self { query_timeout, ..self.clone() }
    }

    /// The URL of the server, for the log.
    pub fn url(&self) -> &str {
        self.url.as_str()
    }

    /// Runs a statement and returns its output. `parameters` are URL parameters: settings, or as
    /// `param_name` the value of a `{name:Type}` in the statement.
    ///
    /// # Errors
    ///
    /// If the server does not answer or refuses.
    pub fn query(&self, statement: &str, parameters: &[(&str, &str)]) -> Result<String, ClientError> {
        let mut response = self.ask(statement, parameters, self.query_timeout)?;
        read_text(&mut response)
    }

    /// Runs a statement and streams its output, which may be long. The whole output must be read
    /// within `time`.
    ///
    /// # Errors
    ///
    /// If the server does not answer or refuses.
    pub fn stream(
        &self,
        statement: &str,
        parameters: &[(&str, &str)],
        time: Duration,
    ) -> Result<impl Read + use<>, ClientError> {
        self.ask(statement, parameters, time)
    }

    fn ask(&self, statement: &str, parameters: &[(&str, &str)], time: Duration) -> Result<Response, ClientError> {
        let query_id = next_query_id();
        let mut parameters = parameters.to_vec();
        parameters.push(("query_id", &query_id));
        let request = self.http.post(self.address(&parameters)).timeout(time).body(statement.to_owned());
        let request =
            self.credentials().into_iter().fold(request, |request, (name, value)| request.header(name, value));
        let response = request.send().map_err(|error| not_sent(&error))?;
        let mut verdict = ReplyVerdict::new(response.status().as_u16(), response.headers(), &query_id);
        if verdict.refused {
            let mut text = Vec::new();
            response.take(ERROR_BYTES_MAX).read_to_end(&mut text).map_err(broke_off)?;
            verdict.read(&text);
            return Err(verdict.refusal());
        }
        verdict.check_answer()?;
        Ok(response)
    }

    /// The URL of a request with these parameters.
    pub(crate) fn address(&self, parameters: &[(&str, &str)]) -> Url {
        let mut url = self.url.clone();
        url.query_pairs_mut().extend_pairs(parameters);
        url
    }

    /// The headers with user and password.
    pub(crate) fn credentials(&self) -> Vec<(&'static str, &str)> {
        let mut headers = vec![("X-ClickHouse-User", self.user.as_str())];
        headers.extend(self.password.as_deref().map(|password| ("X-ClickHouse-Key", password)));
        headers
    }
}

/// Decides whether a reply is a success while its body is read.
///
/// An INSERT is proven if
///
/// - the status is 200, and no header has an exception code (ClickHouse may answer 200 with an exception:
///   ClickHouse issue 65117);
/// - the reply has the `X-ClickHouse-Query-Id` that was sent;
/// - the reply announces no trailers;
/// - `X-ClickHouse-Summary`, if there is one, says no fewer rows than were sent;
/// - the body is empty to its end.
///
/// Any other reply may come from a proxy in front of ClickHouse, or belong to another request.
pub(crate) struct ReplyVerdict {
    status: u16,
    code: Option<u32>,
    refused: bool,
    /// The reason why the reply may not be ClickHouse's answer to this request.
    doubt: Option<String>,
    /// The number of rows in `X-ClickHouse-Summary`.
    written_rows: Option<u64>,
    front: Vec<u8>,
    end: Vec<u8>,
}

impl ReplyVerdict {
    pub(crate) fn new(status: u16, headers: &HeaderMap, query_id: &str) -> Self {
        let code = headers.get("X-ClickHouse-Exception-Code");
        let summary = headers.get("X-ClickHouse-Summary").and_then(|summary| summary.to_str().ok());
        Self {
            status,
            // ClickHouse answers a statement with no other 2xx status than 200; `doubt` covers those.
            refused: !(200..300).contains(&status) || code.is_some(),
            code: code.and_then(|code| code.to_str().ok()?.parse().ok()),
            doubt: doubt(status, headers, query_id),
            written_rows: summary.and_then(written_rows),
            front: Vec::new(),
            end: Vec::new(),
        }
    }

    /// Takes the next bytes of the body; only the front and the end of a body are kept.
    pub(crate) fn read(&mut self, bytes: &[u8]) {
        let (front, rest) = bytes.split_at_checked(FRONT_BYTES_MAX - self.front.len()).unwrap_or((bytes, &[]));
        self.front.extend_from_slice(front);
        let rest = rest.get(rest.len().saturating_sub(END_BYTES_MAX)..).unwrap_or_default();
        self.end.extend_from_slice(rest);
        self.end.drain(..self.end.len().saturating_sub(END_BYTES_MAX));
    }

    /// Checks that the reply is ClickHouse's answer to this request.
    fn check_answer(&self) -> Result<(), ClientError> {
        self.doubt.clone().map_or(Ok(()), |doubt| Err(ClientError::Unproven(doubt)))
    }

    /// The result of an INSERT of `rows` rows, after the whole body of the reply was read.
    pub(crate) fn of_insert(self, rows: u64) -> Result<(), ClientError> {
        if self.refused {
            return Err(self.refusal());
        }
        if !self.front.is_empty() {
            // ClickHouse sends a late error in the body of a reply with status 200. Any other body is
            // not from ClickHouse.
            return Err(if self.text().starts_with("Code: ") { self.refusal() } else { self.page() });
        }
        self.check_answer()?;
        match self.written_rows {
            Some(written) if written < rows => {
                Err(ClientError::Unproven(format!("ClickHouse has read {written} of {rows} rows")))
            }
            _ => Ok(()),
        }
    }

    fn refusal(self) -> ClientError {
        let message = self.text();
        ClientError::Refused { status: self.status, code: self.code.or_else(|| code_in(&message)), message }
    }

    fn page(&self) -> ClientError {
        let text = self.text();
        ClientError::Unproven(format!("status {} with a page: {}", self.status, first_line(&text)))
    }

    fn text(&self) -> String {
        let (front, end) = (String::from_utf8_lossy(&self.front), String::from_utf8_lossy(&self.end));
        if end.is_empty() { front.into_owned() } else { format!("{front} … {end}") }
    }
}

/// The reason why a reply may not be ClickHouse's answer to the request with this id; `None` if it is.
fn doubt(status: u16, headers: &HeaderMap, query_id: &str) -> Option<String> {
    if status != 200 {
        return Some(format!("status {status}, where ClickHouse answers 200"));
    }
    if headers.contains_key("Trailer") {
        return Some("it announces trailers, which may name an exception".to_owned());
    }
    match headers.get("X-ClickHouse-Query-Id").map(|id| id.as_bytes()) {
        Some(id) if id == query_id.as_bytes() => None,
        Some(id) => Some(format!(
            "it has the X-ClickHouse-Query-Id `{}` and not the one that was sent: a proxy in front of ClickHouse \
             changes query_id, or answers with the reply to another request",
            String::from_utf8_lossy(id).chars().take(100).collect::<String>()
        )),
        None => Some(
            "it has no X-ClickHouse-Query-Id: a proxy in front of ClickHouse answered, or removes that field"
                .to_owned(),
        ),
    }
}

/// The number in `{"read_rows":"2",…,"written_rows":"2",…}`.
fn written_rows(summary: &str) -> Option<u64> {
    let summary: std::collections::HashMap<String, String> = sonic_rs::from_str(summary).ok()?;
    summary.get("written_rows")?.parse().ok()
}

/// A unique id for a query: process id, start time of the process, and a counter.
fn next_query_id() -> String {
    static BEGUN: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let begun = BEGUN.get_or_init(unix_ms);
    format!("sluicegate.question.{}.{begun:x}.{}", std::process::id(), COUNT.fetch_add(1, Relaxed))
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn read_text(response: &mut Response) -> Result<String, ClientError> {
    let mut text = String::new();
    response.take(ANSWER_BYTES_MAX).read_to_string(&mut text).map_err(broke_off)?;
    Ok(text)
}

/// The number in `Code: 60. DB::Exception: …`.
fn code_in(message: &str) -> Option<u32> {
    let digits = message.strip_prefix("Code: ")?;
    digits.split('.').next()?.parse().ok()
}

fn broke_off(error: std::io::Error) -> ClientError {
    ClientError::NoAnswer(error.to_string())
}

/// The error of a request that got no reply.
pub(crate) fn not_sent(error: &reqwest::Error) -> ClientError {
    if error.is_connect() { ClientError::NoConnection(causes(error)) } else { ClientError::NoAnswer(causes(error)) }
}

/// The text of an error and its causes, without the URL, whose parameters are long.
pub(crate) fn causes(error: &reqwest::Error) -> String {
    let mut text = match (error.is_timeout(), error.is_connect()) {
        (true, _) => "time-out".to_owned(),
        (_, true) => "no connection".to_owned(),
        _ => "the exchange broke off".to_owned(),
    };
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "sluicegate-1";

    fn verdict(status: u16, fields: &[(&'static str, &str)], body: &[u8]) -> Result<(), ClientError> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name = reqwest::header::HeaderName::from_static(name);
            headers.insert(name, value.parse().unwrap());
        }
        let mut verdict = ReplyVerdict::new(status, &headers, ID);
        body.chunks(3).for_each(|piece| verdict.read(piece));
        verdict.of_insert(20)
    }

    const OWN: (&str, &str) = ("x-clickhouse-query-id", ID);
    const CODE: &str = "x-clickhouse-exception-code";

    #[test]
    fn only_the_empty_200_of_this_very_query_proves_an_insert() {
        assert_eq!(verdict(200, &[OWN], b""), Ok(()));
        let of_all = ("x-clickhouse-summary", "{\"read_rows\":\"20\",\"written_rows\":\"20\"}");
        assert_eq!(verdict(200, &[OWN, of_all], b""), Ok(()));
        let is_unproven =
            |status, fields: &[_], body| matches!(verdict(status, fields, body), Err(ClientError::Unproven(_)));
        assert!(is_unproven(200, &[], b""), "a balancer");
        assert!(is_unproven(200, &[("x-clickhouse-query-id", "another")], b""), "an old reply");
        assert!(is_unproven(204, &[OWN], b""), "no content");
        assert!(is_unproven(200, &[OWN, ("trailer", "X-Exception")], b""), "trailers");
        assert!(is_unproven(200, &[OWN], b"<html>log in"), "a page");
        let fewer = ("x-clickhouse-summary", "{\"written_rows\":\"19\"}");
        assert!(is_unproven(200, &[OWN, fewer], b""), "a body that was cut at the end of a row");
    }

    #[test]
    fn a_refusal_has_its_code_and_both_ends_of_its_text() {
        let refused =
            |status, code, message: &str| Err(ClientError::Refused { status, code, message: message.to_owned() });
        assert_eq!(verdict(200, &[OWN, (CODE, "241")], b""), refused(200, Some(241), ""));
        assert_eq!(verdict(200, &[OWN, (CODE, "odd")], b""), refused(200, None, ""));
        assert_eq!(verdict(200, &[OWN], b"Code: 60. DB"), refused(200, Some(60), "Code: 60. DB"));
        assert_eq!(verdict(500, &[], b""), refused(500, None, ""));
        assert_eq!(verdict(302, &[], b""), refused(302, None, ""));
        assert_eq!(verdict(404, &[(CODE, "60")], b"a\nb"), refused(404, Some(60), "a\nb"));
        let long = [vec![b'x'; 100_000], b": while pushing to view d.v".to_vec()].concat();
        let Err(ClientError::Refused { message, .. }) = verdict(500, &[], &long) else { panic!("it is a refusal") };
        assert!(message.len() < 7000 && message.starts_with("xxx") && message.ends_with("view d.v"));
    }

    #[test]
    fn no_two_questions_have_one_id() {
        assert_ne!(next_query_id(), next_query_id());
    }

    #[test]
    fn the_code_is_read_from_the_text() {
        assert_eq!(code_in("Code: 60. DB::Exception: Table default.x does not exist."), Some(60));
        assert_eq!(code_in("Ok."), None);
        assert_eq!(code_in("Code: . DB"), None);
    }
}
