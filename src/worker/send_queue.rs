//! How much of what was written to a socket its peer has not taken.

#![allow(unsafe_code, reason = "rustix has no safe call for this request")]

use std::os::fd::AsFd;

use rustix::ioctl::{Getter, ioctl};

/// Bytes that the kernel keeps for the peer: not sent, or sent and not acknowledged (tcp(7), unix(7),
/// `SIOCOUTQ`). 0 where the kernel does not tell.
pub fn bytes(socket: &impl AsFd) -> usize {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: TIOCOUTQ, which is SIOCOUTQ, writes one `int` and reads nothing.
        let asked = unsafe { ioctl(socket, Getter::<{ libc::TIOCOUTQ as rustix::ioctl::Opcode }, libc::c_int>::new()) };
        asked.ok().and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(0)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = socket;
        0
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_the_peer_has_not_read_is_counted_until_it_has_read_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut writer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut reader, _) = listener.accept().unwrap();
        writer.set_nonblocking(true).unwrap();
        let mut written = 0;
        while let Ok(len) = writer.write(&[7; 64 << 10]) {
            written += len;
        }
        let full = bytes(&writer);
        assert!(full > 0 && full <= written, "{full} of {written}");
        reader.read_exact(&mut vec![0; written]).unwrap();
        while bytes(&writer) > 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
}
