//! ClickHouse's HTTP interface, as far as this server needs it.

use std::fmt;
use std::io::Read;
use std::time::Duration;

use reqwest::Url;
use reqwest::blocking::{Body, Client, Response};

use crate::config::{ConfigError, Settings};

/// How long a connection may take to open; a host that is gone should not hold an inserter.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a question about tables and settings may take.
const QUERY_TIMEOUT: Duration = Duration::from_secs(30);

/// How much of ClickHouse's answer to a question is read at most: columns of a wide table are far
/// below it.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// How much of an error's text is kept.
const MESSAGE_BYTES_MAX: u64 = 4 << 10;

/// Why ClickHouse did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientError {
    /// No answer: connection refused, time-out, broken off. Whether an insert took effect is unknown.
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
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer(reason) => write!(f, "no answer from ClickHouse: {reason}"),
            Self::Refused { status, message, .. } if message.is_empty() => {
                write!(f, "ClickHouse answered {status} without a reason")
            }
            Self::Refused { message, .. } => write!(f, "ClickHouse: {message}"),
        }
    }
}

impl std::error::Error for ClientError {}

/// One ClickHouse server.
#[derive(Clone)]
pub struct ClickHouse {
    http: Client,
    url: Url,
    user: String,
    password: Option<String>,
}

impl ClickHouse {
    /// A client for each `--clickhouse-url`, sharing one pool of connections.
    ///
    /// # Errors
    ///
    /// When a URL or the password file can't be read, or TLS can't be set up.
    pub fn of(settings: &Settings) -> Result<Vec<Self>, ConfigError> {
        // The provider of TLS is process-wide; a second call finds it set, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(None)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .tcp_nodelay(true)
            .build()
            .map_err(|error| ConfigError(format!("the HTTP client can't be set up: {error}")))?;
        let password = settings.clickhouse_password()?;
        settings
            .clickhouse_url
            .iter()
            .map(|url| {
                let url = Url::parse(url).map_err(|error| ConfigError(format!("--clickhouse-url {url}: {error}")))?;
                Ok(Self { http: http.clone(), url, user: settings.clickhouse_user.clone(), password: password.clone() })
            })
            .collect()
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
        let response = self.send(parameters, Body::from(statement.to_owned()), QUERY_TIMEOUT)?;
        let mut text = String::new();
        response.take(ANSWER_BYTES_MAX).read_to_string(&mut text).map_err(no_answer)?;
        Ok(text)
    }

    /// Sends an INSERT whose rows are `body`, and believes it only when everything says that it
    /// was done: status 200, no exception code in the header, and an empty body, read to its end.
    /// (A 200 with an exception has lost data elsewhere: ClickHouse issue 65117.)
    ///
    /// # Errors
    ///
    /// No answer, or a refusal with ClickHouse's code.
    pub fn insert(&self, parameters: &[(&str, &str)], body: Body, timeout: Duration) -> Result<(), ClientError> {
        let response = self.send(parameters, body, timeout)?;
        let status = response.status().as_u16();
        let message = first_line(response)?;
        if message.is_empty() {
            return Ok(());
        }
        Err(ClientError::Refused { status, code: code_in(&message), message })
    }

    fn send(&self, parameters: &[(&str, &str)], body: Body, timeout: Duration) -> Result<Response, ClientError> {
        let mut url = self.url.clone();
        url.query_pairs_mut().extend_pairs(parameters);
        let mut request = self.http.post(url).timeout(timeout).header("X-ClickHouse-User", &self.user).body(body);
        if let Some(password) = &self.password {
            request = request.header("X-ClickHouse-Key", password);
        }
        let response = request.send().map_err(|error| ClientError::NoAnswer(causes(&error)))?;
        let status = response.status().as_u16();
        let code = response
            .headers()
            .get("X-ClickHouse-Exception-Code")
            .map(|value| value.to_str().ok().and_then(|text| text.parse().ok()));
        if status == 200 && code.is_none() {
            return Ok(response);
        }
        let message = first_line(response).unwrap_or_default();
        let code = code.flatten().or_else(|| code_in(&message));
        Err(ClientError::Refused { status, code, message })
    }
}

/// The first line of a body that should be empty or an error's text; the body is read to its end,
/// within bounds.
fn first_line(response: Response) -> Result<String, ClientError> {
    let mut text = Vec::new();
    response.take(MESSAGE_BYTES_MAX).read_to_end(&mut text).map_err(no_answer)?;
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// The number in `Code: 60. DB::Exception: …`.
fn code_in(message: &str) -> Option<u32> {
    let digits = message.strip_prefix("Code: ")?;
    digits.split('.').next()?.parse().ok()
}

fn no_answer(error: std::io::Error) -> ClientError {
    ClientError::NoAnswer(error.to_string())
}

/// An error with what caused it, without the URL: its parameters are long and known.
fn causes(error: &reqwest::Error) -> String {
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

    #[test]
    fn the_code_is_read_from_the_text() {
        assert_eq!(code_in("Code: 60. DB::Exception: Table default.x does not exist."), Some(60));
        assert_eq!(code_in("Ok."), None);
        assert_eq!(code_in("Code: . DB"), None);
    }
}
