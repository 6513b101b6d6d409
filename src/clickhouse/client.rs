//! ClickHouse's HTTP interface, as far as this server needs it.

use std::fmt;
use std::io::{self, Read};
use std::time::Duration;

use reqwest::Url;
use reqwest::blocking::{Client, Response};
use reqwest::header::HeaderMap;

/// How long a question about tables and settings may take.
const QUERY_TIMEOUT: Duration = Duration::from_secs(30);

/// How much of ClickHouse's answer to a question is read at most: columns of a wide table are far
/// below it.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// How much of an error's text is kept.
const MESSAGE_BYTES_MAX: usize = 4 << 10;

/// Why ClickHouse did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientError {
    /// Not one byte was sent.
    NoConnection(String),
    /// No answer: a time-out, broken off. Whether an insert took effect is unknown.
    NoAnswer(String),
    /// An answer that is no success.
    Refused {
        /// HTTP status; 200 is possible, with a code in the header.
        status: u16,
        /// ClickHouse's own code, where it gave one.
        code: Option<u32>,
        /// The first line of what it said.
        message: String,
    },
    /// The segment is not what was sealed: what was sent of it broke off before its end, and so
    /// nothing of it is stored. ClickHouse is not to blame, nor is the network.
    Damaged(String),
    /// It answered a repeat with success, and has none of the rows: see `presence`.
    Absent(String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoConnection(reason) => write!(f, "no connection to ClickHouse: {reason}"),
            Self::NoAnswer(reason) => write!(f, "no answer from ClickHouse: {reason}"),
            Self::Refused { status, message, .. } if message.is_empty() => {
                write!(f, "ClickHouse answered {status} without a reason")
            }
            Self::Refused { message, .. } => write!(f, "ClickHouse: {message}"),
            Self::Damaged(reason) | Self::Absent(reason) => write!(f, "{reason}"),
        }
    }
}

impl std::error::Error for ClientError {}

impl ClientError {
    /// True when there was no answer: another server, or a later try, may have one.
    pub fn is_no_answer(&self) -> bool {
        matches!(self, Self::NoConnection(_) | Self::NoAnswer(_))
    }
}

/// What both of `reqwest`'s builders are told: no proxy from the environment and no redirects
/// stand between a segment and its ClickHouse.
macro_rules! http_settings {
    ($builder:expr) => {
        $builder
            .connect_timeout(std::time::Duration::from_secs(5))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .tcp_nodelay(true)
    };
}
pub(crate) use http_settings;

/// Sets the process's provider of TLS, without which no HTTP client can be made. A second call finds
/// it set, which is as good.
pub fn provide_tls() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// One ClickHouse server.
#[derive(Clone)]
pub struct ClickHouse {
    http: Client,
    url: Url,
    user: String,
    password: Option<String>,
}

/// Where the servers are, and who asks them.
#[derive(Clone)]
pub struct ClientConfig {
    /// `--clickhouse-url`, in order.
    pub urls: Vec<String>,
    /// `--clickhouse-user`.
    pub user: String,
    /// Never printed.
    pub password: Option<String>,
}

impl ClickHouse {
    /// A client for each URL, sharing one pool of connections. Connects to none of them yet.
    ///
    /// # Errors
    ///
    /// When a URL can't be read, or TLS can't be set up.
    pub fn connect(config: &ClientConfig) -> io::Result<Vec<Self>> {
        provide_tls();
        let http = http_settings!(Client::builder())
            .build()
            .map_err(|error| io::Error::other(format!("the HTTP client can't be set up: {error}")))?;
        let client = |url: &String| {
            let url = Url::parse(url).map_err(|error| io::Error::other(format!("--clickhouse-url {url}: {error}")))?;
            Ok(Self { http: http.clone(), url, user: config.user.clone(), password: config.password.clone() })
        };
        config.urls.iter().map(client).collect()
    }

    /// Where it is, for the log.
    pub fn url(&self) -> &str {
        self.url.as_str()
    }

    /// Runs a statement and returns its output. `parameters` are query parameters: settings, or
    /// values for `{name:Type}` in the statement as `param_name`.
    ///
    /// # Errors
    ///
    /// No answer, or a refusal with ClickHouse's code.
    pub fn query(&self, statement: &str, parameters: &[(&str, &str)]) -> Result<String, ClientError> {
        let mut response = self.ask(statement, parameters, QUERY_TIMEOUT)?;
        read_text(&mut response)
    }

    /// The same for an output that may be long: it is read as it comes, within `time`.
    ///
    /// # Errors
    ///
    /// No answer, or a refusal with ClickHouse's code.
    pub fn stream(
        &self,
        statement: &str,
        parameters: &[(&str, &str)],
        time: Duration,
    ) -> Result<impl Read + use<>, ClientError> {
        self.ask(statement, parameters, time)
    }

    fn ask(&self, statement: &str, parameters: &[(&str, &str)], time: Duration) -> Result<Response, ClientError> {
        let request = self.http.post(self.address(parameters)).timeout(time).body(statement.to_owned());
        let request =
            self.credentials().into_iter().fold(request, |request, (name, value)| request.header(name, value));
        let response = request.send().map_err(|error| not_sent(&error))?;
        let mut verdict = Verdict::new(response.status().as_u16(), response.headers());
        if verdict.refused {
            let mut text = Vec::new();
            response.take(MESSAGE_BYTES_MAX as u64).read_to_end(&mut text).map_err(broke_off)?;
            verdict.read(&text);
            return Err(verdict.refusal());
        }
        Ok(response)
    }

    /// Where to send a request with these parameters.
    pub(crate) fn address(&self, parameters: &[(&str, &str)]) -> Url {
        let mut url = self.url.clone();
        url.query_pairs_mut().extend_pairs(parameters);
        url
    }

    /// Headers that say who asks.
    pub(crate) fn credentials(&self) -> Vec<(&'static str, &str)> {
        let mut headers = vec![("X-ClickHouse-User", self.user.as_str())];
        headers.extend(self.password.as_deref().map(|password| ("X-ClickHouse-Key", password)));
        headers
    }
}

/// What a reply says, gathered while its body is read.
///
/// An insert was done when the status is 200, there is no exception code in the header, and the
/// body, read to its end, is empty. (A 200 with an exception has lost data elsewhere: ClickHouse
/// issue 65117.)
pub(crate) struct Verdict {
    status: u16,
    code: Option<u32>,
    refused: bool,
    text: Vec<u8>,
}

impl Verdict {
    pub(crate) fn new(status: u16, headers: &HeaderMap) -> Self {
        let code = headers.get("X-ClickHouse-Exception-Code");
        Self {
            status,
            refused: status != 200 || code.is_some(),
            code: code.and_then(|code| code.to_str().ok()?.parse().ok()),
            text: Vec::new(),
        }
    }

    /// Takes the next piece of the body, of which only the front is kept.
    pub(crate) fn read(&mut self, piece: &[u8]) {
        let room = MESSAGE_BYTES_MAX - self.text.len();
        self.text.extend_from_slice(piece.get(..room).unwrap_or(piece));
    }

    /// The whole body of an insert's reply is read.
    pub(crate) fn of_insert(self) -> Result<(), ClientError> {
        if self.refused || !self.text.is_empty() { Err(self.refusal()) } else { Ok(()) }
    }

    fn refusal(self) -> ClientError {
        let text = String::from_utf8_lossy(&self.text);
        let message = text.lines().next().unwrap_or_default().to_owned();
        ClientError::Refused { status: self.status, code: self.code.or_else(|| code_in(&message)), message }
    }
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

/// The error of a request that may not have left.
pub(crate) fn not_sent(error: &reqwest::Error) -> ClientError {
    if error.is_connect() { ClientError::NoConnection(causes(error)) } else { ClientError::NoAnswer(causes(error)) }
}

/// An error with what caused it, without the URL: its parameters are long and known.
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

    fn verdict(status: u16, code: Option<&'static str>, body: &[u8]) -> Result<(), ClientError> {
        let mut headers = HeaderMap::new();
        headers.extend(code.map(|code| {
            let name = reqwest::header::HeaderName::from_static("x-clickhouse-exception-code");
            (name, reqwest::header::HeaderValue::from_static(code))
        }));
        let mut verdict = Verdict::new(status, &headers);
        body.chunks(3).for_each(|piece| verdict.read(piece));
        verdict.of_insert()
    }

    #[test]
    fn only_an_empty_200_without_an_exception_proves_an_insert() {
        assert_eq!(verdict(200, None, b""), Ok(()));
        let refused =
            |status, code, message: &str| Err(ClientError::Refused { status, code, message: message.to_owned() });
        assert_eq!(verdict(200, Some("241"), b""), refused(200, Some(241), ""));
        assert_eq!(verdict(200, Some("odd"), b""), refused(200, None, ""));
        assert_eq!(verdict(200, None, b"Code: 60. DB"), refused(200, Some(60), "Code: 60. DB"));
        assert_eq!(verdict(500, None, b""), refused(500, None, ""));
        assert_eq!(verdict(404, Some("60"), b"a\nb"), refused(404, Some(60), "a"));
        assert!(verdict(500, None, &[b'x'; 100_000]).is_err());
    }

    #[test]
    fn the_code_is_read_from_the_text() {
        assert_eq!(code_in("Code: 60. DB::Exception: Table default.x does not exist."), Some(60));
        assert_eq!(code_in("Ok."), None);
        assert_eq!(code_in("Code: . DB"), None);
    }
}
