//! `--state FILE`: how far each file was sent. It is replaced as a whole, at most once a second and at the end. What
//! was sent and is not in it yet is sent again under the same keys.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::contents::{Mark, hex};
use super::source::is_stdin;
use crate::config::{ConfigError, SendArgs};

/// Bytes of a state file that are read.
const BYTES_MAX: u64 = 64 << 20;

/// The time between two replacements of the file.
const EVERY: Duration = Duration::from_secs(1);

/// The version of the format.
const VERSION: u32 = 1;

/// The contents of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Contents {
    version: u32,
    url: String,
    salt: String,
    files: Vec<Sent>,
}

/// How far a file was sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Sent {
    file: String,
    /// Bytes of the uncompressed file.
    offset: u64,
    lines: u64,
    /// Hash of these bytes.
    blake3: String,
    ends_line: bool,
}

/// The state of a run; without `--state` it keeps nothing.
pub(super) struct State {
    path: Option<PathBuf>,
    contents: Contents,
    written: Instant,
    is_dirty: bool,
}

impl State {
    /// Reads the file of `--state`, if it is there.
    ///
    /// # Errors
    ///
    /// If it can't be read, is no such file, or is about another destination.
    pub fn read(arguments: &SendArgs) -> Result<Self, ConfigError> {
        let new =
            Contents { version: VERSION, url: arguments.url.clone(), salt: arguments.salt.clone(), files: Vec::new() };
        let state = |path, contents| Self { path, contents, written: Instant::now(), is_dirty: false };
        let Some(path) = &arguments.state else { return Ok(state(None, new)) };
        let wrong = |reason: String| ConfigError(format!("--state {}: {reason}", path.display()));
        let mut text = Vec::new();
        match File::open(path) {
            Ok(file) => file.take(BYTES_MAX).read_to_end(&mut text).map_err(|error| wrong(error.to_string()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(state(Some(path.clone()), new)),
            Err(error) => return Err(wrong(error.to_string())),
        };
        let contents: Contents = sonic_rs::from_slice(&text)
            .map_err(|_| wrong("it is not a file that `sluicegate send --state` has written".to_owned()))?;
        for (is, was, what) in [
            (VERSION.to_string(), contents.version.to_string(), "written by another version of sluicegate:"),
            (new.url, contents.url.clone(), "about another --url:"),
            (new.salt, contents.salt.clone(), "about another --salt:"),
        ] {
            if is != was {
                return Err(wrong(format!("it is {what} {was}")));
            }
        }
        Ok(state(Some(path.clone()), contents))
    }

    /// How far a file was sent, if it was.
    pub fn of(&self, file: &Path) -> Option<Mark> {
        let name = name(file);
        let sent = self.contents.files.iter().find(|sent| sent.file == name)?;
        let mut digest = [0; 32];
        for (byte, digits) in digest.iter_mut().zip(sent.blake3.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        let Sent { offset, lines, ends_line, .. } = *sent;
        Some(Mark { offset, lines, digest, ends_line })
    }

    /// Notes how far a file was sent, and writes that if the last time was long enough ago.
    ///
    /// # Errors
    ///
    /// If the file can't be written.
    pub fn note(&mut self, file: &Path, mark: &Mark) -> Result<(), ConfigError> {
        if self.path.is_none() {
            return Ok(());
        }
        let Mark { offset, lines, digest, ends_line } = *mark;
        let sent = Sent { file: name(file), offset, lines, blake3: hex(&digest), ends_line };
        match self.contents.files.iter_mut().find(|known| known.file == sent.file) {
            Some(known) => *known = sent,
            None => self.contents.files.push(sent),
        }
        self.is_dirty = true;
        if self.written.elapsed() >= EVERY { self.write() } else { Ok(()) }
    }

    /// Writes what was noted.
    ///
    /// # Errors
    ///
    /// If the file can't be written.
    pub fn write(&mut self) -> Result<(), ConfigError> {
        let Some(path) = self.path.as_ref().filter(|_| self.is_dirty) else { return Ok(()) };
        let replaced = sonic_rs::to_vec(&self.contents).map_err(io::Error::other).and_then(|text| replace(path, &text));
        replaced.map_err(|error| ConfigError(format!("--state {}: {error}", path.display())))?;
        (self.written, self.is_dirty) = (Instant::now(), false);
        Ok(())
    }
}

/// Writes a file so that there is either the former one or this one.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let mut file = File::create(&beside)?;
    file.write_all(text)?;
    file.sync_data()?;
    fs::rename(&beside, path)
}

/// The name of a file in the state: the same from whatever folder the command is called.
fn name(file: &Path) -> String {
    let whole =
        if is_stdin(file) { file.to_owned() } else { fs::canonicalize(file).unwrap_or_else(|_| file.to_owned()) };
    whole.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::contents::Prefix;
    use super::*;
    use crate::config::cli::{self, Command};

    fn arguments(path: &Path, more: &[&str]) -> SendArgs {
        let words = [&["sluicegate", "send", "-", "--state", path.to_str().unwrap()][..], more].concat();
        match cli::parse_from(words.into_iter().map(Into::into).collect()).unwrap().command {
            Command::Send(arguments) => *arguments,
            _ => panic!("the command is send"),
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let mut state = State::read(&arguments(&path, &[])).unwrap();
        let mut prefix = Prefix::new("");
        assert_eq!(state.of(Path::new("-")), None);
        state.write().unwrap();
        assert!(!path.exists(), "nothing was noted");
        for contents in ["a\n", "b"] {
            prefix.extend(contents.as_bytes());
            state.note(Path::new("-"), &prefix.mark()).unwrap();
        }
        state.note(folder.path(), &Prefix::new("").mark()).unwrap();
        state.write().unwrap();
        let state = State::read(&arguments(&path, &[])).unwrap();
        assert_eq!(state.of(Path::new("-")), Some(prefix.mark()));
        assert_eq!(state.of(folder.path()), Some(Prefix::new("").mark()));
        assert_eq!(state.contents.files.len(), 2);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_state_of_something_else_is_refused_and_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        fs::write(&path, "notes").unwrap();
        let refused = |more: &[&str]| State::read(&arguments(&path, more)).err().unwrap().0;
        assert!(refused(&[]).contains("it is not a file that"));
        fs::write(&path, "{\"version\":1,\"url\":\"http://a/\",\"salt\":\"\",\"files\":[]}").unwrap();
        assert!(refused(&[]).contains("about another --url: http://a/"));
        assert!(refused(&["--url", "http://a/", "--salt", "x"]).contains("about another --salt"));
        assert!(State::read(&arguments(&path, &["--url", "http://a/"])).is_ok());
        assert!(State::read(&arguments(folder.path(), &[])).is_err());
    }
}
