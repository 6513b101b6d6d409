//! Listening sockets that systemd passes (sd_listen_fds(3)): they stay open while the server is restarted, and
//! connections wait in their queues.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use listenfd::ListenFd;

use super::Listener;

/// The sockets that were passed to this process.
#[derive(Debug, Default)]
pub struct PassedSockets(Vec<PassedSocket>);

#[derive(Debug)]
enum PassedSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl PassedSockets {
    /// Takes those that the environment names. To be called once, before another thread runs: the environment is
    /// changed, so that no child takes them for its own.
    ///
    /// # Errors
    ///
    /// If one of them is no socket that listens on an address or a path.
    pub fn take() -> io::Result<Self> {
        let mut passed = ListenFd::from_env();
        let sockets = (0..passed.len()).map(|index| match passed.take_tcp_listener(index) {
            Ok(socket) => Ok(socket.map(PassedSocket::Tcp)),
            // It is there still.
            Err(_) => Ok(passed.take_unix_listener(index)?.map(PassedSocket::Unix)),
        });
        let sockets = sockets.filter_map(Result::transpose).collect::<io::Result<Vec<_>>>()?;
        Ok(Self(sockets))
    }

    /// True if none was passed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where they listen.
    pub fn addresses(&self) -> Vec<String> {
        let address = |socket: &PassedSocket| match socket {
            PassedSocket::Tcp(socket) => socket.local_addr().map(|address| address.to_string()),
            PassedSocket::Unix(socket) => socket.local_addr().map(|address| {
                address.as_pathname().map_or("unix:".to_owned(), |path| format!("unix:{}", path.display()))
            }),
        };
        self.0.iter().map(|socket| address(socket).unwrap_or_default()).collect()
    }

    /// Listeners for so many workers, of each socket one a worker: they share its queue.
    ///
    /// # Errors
    ///
    /// If a socket can't be duplicated.
    pub fn listeners(&self, workers: usize) -> io::Result<Vec<Vec<Listener>>> {
        let duplicate = |socket: &PassedSocket| match socket {
            PassedSocket::Tcp(socket) => {
                socket.set_nonblocking(true)?;
                Ok(Listener::Tcp(mio::net::TcpListener::from_std(socket.try_clone()?)))
            }
            PassedSocket::Unix(socket) => {
                socket.set_nonblocking(true)?;
                // The file is systemd's.
                Ok(Listener::Unix { _file: None, socket: mio::net::UnixListener::from_std(socket.try_clone()?) })
            }
        };
        self.0.iter().map(|socket| (0..workers).map(|_| duplicate(socket)).collect()).collect()
    }
}
