//! The secret that bodies are hashed with, in `keys/secret`: 32 bytes as hexadecimal digits.
//!
//! Without it nobody can compare a body with one that came before, which then counts as the same: a request is
//! not refused because the secret was lost.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::layout::{SpoolError, failed, random};
use super::storage::{self, Storage};
use crate::batch::identity::BodyHashing;

pub(super) const NAME: &str = "secret";

/// The secret, drawn or read.
#[derive(Debug, Default)]
pub(super) struct Secret {
    bytes: [u8; 32],
    is_kept: AtomicBool,
    bodies: Arc<BodyHashing>,
}

impl Secret {
    /// The one that the folder has, or a new one.
    pub(super) fn open(storage: &dyn Storage, folder: &Path) -> Result<Self, SpoolError> {
        let path = folder.join(NAME);
        let kept = read(storage, &path).map_err(failed(format!("reading {}", path.display())))?;
        let bytes = match kept {
            Some(bytes) => bytes,
            None => drawn().map_err(failed("drawing a random number".to_owned()))?,
        };
        Ok(Self { bytes, is_kept: AtomicBool::new(kept.is_some()), bodies: Arc::new(BodyHashing::new(&bytes)) })
    }

    pub(super) fn bodies(&self) -> &Arc<BodyHashing> {
        &self.bodies
    }

    /// Writes it, unless it is written.
    pub(super) fn keep(&self, storage: &dyn Storage, folder: &Path) -> io::Result<()> {
        if !self.is_kept.load(Relaxed) {
            let digits: String = self.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            storage::replace(storage, &folder.join(NAME), digits.as_bytes())?;
            storage.sync_folder(folder)?;
            self.is_kept.store(true, Relaxed);
        }
        Ok(())
    }
}

fn drawn() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    for word in bytes.as_chunks_mut().0 {
        *word = random()?.to_le_bytes();
    }
    Ok(bytes)
}

/// The secret in a file; `None` where there is none, or what can't be one.
fn read(storage: &dyn Storage, path: &Path) -> io::Result<Option<[u8; 32]>> {
    let file = match storage.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut digits = [0; 64];
    let len = storage::read_up_to(&*file, &mut digits, 0)?;
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
        let value = |digit: u8| char::from(digit).to_digit(16);
        match pair.map(value) {
            [Some(high), Some(low)] => *byte = (high << 4 | low) as u8,
            _ => {
                tracing::warn!(
                    path = %path.display(), len,
                    "the secret that bodies are hashed with can't be read, and gets a new one in its place: a key that \
                     was used before is not refused for another body"
                );
                return Ok(None);
            }
        }
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::super::storage::Disk;
    use super::*;

    #[test]
    fn a_secret_is_drawn_once_and_a_damaged_one_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let open = || {
            let secret = Secret::open(&Disk, folder.path()).unwrap();
            secret.keep(&Disk, folder.path()).unwrap();
            secret.bytes
        };
        let first = open();
        assert!(first != [0; 32] && open() == first);
        std::fs::write(folder.path().join(NAME), "0123").unwrap();
        let second = open();
        assert!(second != first && open() == second);
    }
}
