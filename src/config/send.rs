//! The arguments of `sluicegate send`. It reads no configuration file: it usually runs on another machine than
//! the server.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use clap::Args;

use super::ConfigError;
use super::validate::rule;

/// Upper limit of `--connections`. Each one is a thread, and holds a batch.
const CONNECTIONS_CEILING: usize = 256;

/// Upper limit of `--batch-bytes`. A few batches are in memory for each connection.
const BATCH_BYTES_CEILING: u64 = 256 << 20;

/// The variable that holds the write key.
pub const WRITE_KEY_VARIABLE: &str = "SLUICEGATE_WRITE_KEY";

/// Arguments of `sluicegate send`.
#[derive(Debug, Clone, Args)]
pub struct SendArgs {
    /// Files with one JSON object a line, plain, gzip or zstd; - is standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Where the events go; a query such as ?ack=inserted is kept, and ?dry_run=1 stores nothing
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080/api/events")]
    pub url: String,
    /// Number of requests at the same time
    #[arg(long, value_name = "N", default_value = "4")]
    pub connections: NonZeroUsize,
    /// Number of lines of a request. Another number makes other requests with other keys: what was sent before is then
    /// stored again
    #[arg(long, value_name = "N", default_value = "10000")]
    pub batch_lines: NonZeroU32,
    /// Number of bytes of a request, and of the longest line. Another number makes other requests with other keys:
    /// what was sent before is then stored again
    #[arg(long, value_name = "SIZE", default_value = "4MiB")]
    pub batch_bytes: ByteSize,
    /// File whose first line is the write key, sent as Authorization: Bearer; the variable SLUICEGATE_WRITE_KEY may
    /// hold the key instead
    #[arg(long, value_name = "FILE")]
    pub write_key_file: Option<PathBuf>,
    /// File with the certificates, in PEM, of the authorities that are trusted for an https:// URL, in place of the
    /// system's
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// File that keeps how far each FILE was sent. With it an interrupted run goes on where it was, and a file that
    /// has grown is sent from its former end on. Without it everything is sent again, and what the server has is not
    /// stored again within 24 hours
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// Part of each Idempotency-Key, for contents that are to be stored again: the keys are made of the contents, so
    /// that two files that begin alike are stored once as far as they are the same
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub salt: String,
    /// Time limit for one attempt of a request
    #[arg(long, value_name = "TIME", default_value = "60s")]
    pub timeout: humantime::Duration,
    /// Time for which a request is sent again, after 429, 503 and broken connections, before send gives up
    #[arg(long, value_name = "TIME", default_value = "15m")]
    pub give_up_after: humantime::Duration,
}

impl SendArgs {
    /// Checks each argument.
    ///
    /// # Errors
    ///
    /// If one is invalid; the sentence names it and what it accepts.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let url = reqwest::Url::parse(&self.url).ok();
        rule(
            url.as_ref().is_some_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host()),
            format_args!("--url must look like http://host:8080/api/events, not `{}`", self.url),
        )?;
        rule(
            url.as_ref().is_some_and(|url| url.username().is_empty() && url.password().is_none()),
            "--url must not hold a user or a password: a write key comes from --write-key-file or SLUICEGATE_WRITE_KEY",
        )?;
        rule(
            url.is_some_and(|url| url.scheme() == "http") || cfg!(feature = "tls"),
            "an https:// address in --url needs TLS, which is not in this build; a build with the feature tls has it",
        )?;
        rule(
            self.connections.get() <= CONNECTIONS_CEILING,
            format_args!("--connections must be at most {CONNECTIONS_CEILING}"),
        )?;
        rule(
            (1..=BATCH_BYTES_CEILING).contains(&self.batch_bytes.0),
            format_args!("--batch-bytes must be from 1B to {}", ByteSize(BATCH_BYTES_CEILING)),
        )?;
        let is_stdin = |file: &&PathBuf| file.as_path() == Path::new("-");
        rule(self.files.iter().filter(is_stdin).count() <= 1, "standard input (-) can be sent only once")
    }

    /// The write key; `None` without one.
    ///
    /// # Errors
    ///
    /// If the file can't be read, or what it holds is no key; the sentence repeats nothing of the file.
    pub fn write_key(&self) -> Result<Option<String>, ConfigError> {
        let (from, text) = match &self.write_key_file {
            Some(path) => {
                let from = format!("--write-key-file {}", path.display());
                let read = super::parts::first_line("--write-key-file", path)?;
                (from, read)
            }
            None => match std::env::var(WRITE_KEY_VARIABLE) {
                Ok(text) => (WRITE_KEY_VARIABLE.to_owned(), text),
                Err(std::env::VarError::NotPresent) => return Ok(None),
                Err(std::env::VarError::NotUnicode(_)) => {
                    return Err(ConfigError(format!("{WRITE_KEY_VARIABLE} holds no text")));
                }
            },
        };
        let key = text.trim();
        rule(
            !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic()) && !key.starts_with("sha256:"),
            format_args!(
                "{from}: a write key is one word of visible ASCII characters, and not the sha256:HEX that a server may have"
            ),
        )?;
        Ok(Some(key.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::config::cli::{Command, parse_from};

    fn arguments(more: &[&str]) -> Result<SendArgs, ConfigError> {
        let words = [&["sluicegate", "send", "-"][..], more].concat();
        match parse_from(words.into_iter().map(OsString::from).collect())?.command {
            Command::Send(arguments) => {
                arguments.validate()?;
                Ok(*arguments)
            }
            _ => panic!("the command is send"),
        }
    }

    #[test]
    fn an_invalid_argument_is_named_with_what_it_accepts() {
        for (wrong, accepted) in [
            (&["--url", "ftp://x"][..], "must look like http://host:8080/api/events"),
            (&["--url", "http://"], "must look like"),
            (&["--url", "http://user@host/api/events"], "must not hold a user"),
            (&["--connections", "0"], "a whole number of at least 1"),
            (&["--connections", "257"], "at most 256"),
            (&["--batch-bytes", "0"], "from 1B to 256.0 MiB"),
            (&["--batch-bytes", "1GiB"], "from 1B to 256.0 MiB"),
            (&["--batch-lines", "0"], "a whole number of at least 1"),
            (&["--timeout", "5"], "looks like 250ms"),
            (&["-"], "only once"),
        ] {
            let error = arguments(wrong).unwrap_err();
            assert!(error.0.contains(accepted) && !error.0.contains('\n'), "{wrong:?}: {error}");
        }
        assert_eq!(arguments(&[]).unwrap().connections.get(), 4);
    }

    #[test]
    fn a_key_file_has_one_key_and_an_error_does_not_repeat_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let key = |contents: &str| {
            std::fs::write(&path, contents).unwrap();
            arguments(&["--write-key-file", path.to_str().unwrap()]).unwrap().write_key()
        };
        assert_eq!(key("secret-1\nmore").unwrap().as_deref(), Some("secret-1"));
        for wrong in ["", "\nsecret", "secret name=web", "sha256:secret", "sécret"] {
            let error = key(wrong).unwrap_err();
            assert!(error.0.contains("--write-key-file") && !error.0.contains("cret n"), "{error}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(arguments(&["--write-key-file", path.to_str().unwrap()]).unwrap().write_key().is_err());
    }
}
