//! Listening on the path of a Unix socket.
//!
//! A Unix socket can't be shared as a port can: the workers have duplicates of one socket, and the file
//! belongs to all of them. It is removed when the last one closes. A process that was killed leaves its
//! file behind; nobody listens there any more, so the next start replaces it.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::net::{SocketAddrUnix, listen};

use super::{ListenAddress, ListenError, ListenReason, Listener};
use crate::limits;

/// Every local user may connect, as to a port of this machine; the folder decides who reaches the
/// socket. As nginx does.
const MODE: u32 = 0o666;

/// The file of a socket, removed when this is dropped.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another process may have put its own socket there.
        let is_ours = |found: fs::Metadata| (found.dev(), found.ino()) == (self.device, self.inode);
        if fs::symlink_metadata(&self.path).is_ok_and(is_ours) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Opens a listening socket at `path` for each worker.
pub(super) fn bind(path: &Path, workers: usize) -> Result<Vec<Listener>, ListenError> {
    let wrong = |reason| ListenError { address: ListenAddress::Unix(path.to_owned()), reason };
    if check(path).map_err(wrong)? {
        fs::remove_file(path).map_err(|error| wrong(error.into()))?;
    }
    let opened = || {
        let socket = UnixListener::bind(path)?;
        let found = fs::symlink_metadata(path)?;
        let file = Arc::new(SocketFile { path: path.to_owned(), device: found.dev(), inode: found.ino() });
        fs::set_permissions(path, Permissions::from_mode(MODE))?;
        // The standard library asks for a shorter queue.
        listen(&socket, limits::LISTEN_BACKLOG)?;
        socket.set_nonblocking(true)?;
        (0..workers)
            .map(|_| {
                let socket = mio::net::UnixListener::from_std(socket.try_clone()?);
                Ok(Listener::Unix { _file: Some(file.clone()), socket })
            })
            .collect::<io::Result<_>>()
    };
    opened().map_err(|error| wrong(error.into()))
}

/// Checks that a socket can be made at `path`, and makes none.
pub(super) fn probe(path: &Path) -> Result<(), ListenError> {
    let wrong = |reason| ListenError { address: ListenAddress::Unix(path.to_owned()), reason };
    check(path).map_err(wrong)?;
    let folder = fs::metadata(path.parent().unwrap_or(path)).map_err(|error| wrong(error.into()))?;
    if folder.is_dir() { Ok(()) } else { Err(wrong(io::Error::from(ErrorKind::NotADirectory).into())) }
}

/// Looks at what is at `path`: true when it is a socket that nobody listens at.
fn check(path: &Path) -> Result<bool, ListenReason> {
    SocketAddrUnix::new(path).map_err(|_| ListenReason::PathTooLong)?;
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        found => found?,
    };
    if !found.file_type().is_socket() {
        return Err(ListenReason::NoSocket);
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        // A full queue, or a socket that nobody may connect to: somebody has it.
        _ => Err(ListenReason::InUse),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn path() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        (folder, path)
    }

    #[test]
    fn every_worker_accepts_at_one_path_and_the_last_one_removes_it() {
        let (_folder, path) = path();
        let mut listeners = bind(&path, 3).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        while let Some(listener) = listeners.pop() {
            let mut client = UnixStream::connect(&path).unwrap();
            let (mut stream, _) = listener.accept().unwrap();
            client.write_all(b"x").unwrap();
            assert_eq!(stream.read(&mut [0; 2]).unwrap(), 1);
        }
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_that_nobody_listens_at_is_replaced_and_a_live_one_is_an_error() {
        let (_folder, path) = path();
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        probe(&path).unwrap();
        let listeners = bind(&path, 1).unwrap();
        for error in [probe(&path).unwrap_err(), bind(&path, 1).unwrap_err()] {
            assert!(error.to_string().contains("in use"), "{error}");
        }
        UnixStream::connect(&path).unwrap();
        drop(listeners);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_is_no_socket_and_one_of_another_process_stay() {
        let (_folder, path) = path();
        fs::write(&path, "kept").unwrap();
        for error in [probe(&path).unwrap_err(), bind(&path, 1).unwrap_err()] {
            assert!(error.to_string().contains("no socket"), "{error}");
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "kept");
        fs::remove_file(&path).unwrap();
        let listeners = bind(&path, 1).unwrap();
        fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(listeners);
        assert!(path.exists());
    }

    #[test]
    fn a_path_that_is_too_long_or_without_a_folder_is_said() {
        let (folder, _) = path();
        let long = folder.path().join("x".repeat(108));
        for error in [probe(&long).unwrap_err(), bind(&long, 1).unwrap_err()] {
            assert!(error.to_string().contains("107 bytes"), "{error}");
        }
        let missing = folder.path().join("missing/socket");
        for error in [probe(&missing).unwrap_err(), bind(&missing, 1).unwrap_err()] {
            assert!(error.to_string().contains("No such file"), "{error}");
        }
        assert!(!folder.path().join("missing").exists());
    }
}
