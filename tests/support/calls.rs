//! System calls of a running server that fail, as on a disk that fails: `strace` sits between the
//! server and the kernel and puts an error in their place.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::Server;

/// All calls of one name fail until this is dropped, or the server ends.
pub struct FailingCalls {
    strace: Child,
    /// It says a line for each new thread, and would end if nobody could hear it.
    _stderr: BufReader<ChildStderr>,
}

impl FailingCalls {
    pub fn of(server: &Server, call: &str, error: &str) -> Self {
        let inject = format!("inject={call}:error={error}");
        let mut strace = Command::new("strace")
            .args(["-f", "-o", "/dev/null", "-e", "signal=none", "-e", &format!("trace={call}"), "-e", &inject, "-p"])
            .arg(server.id().to_string())
            .stderr(Stdio::piped())
            .spawn()
            .expect("`strace` is needed: `make test` installs it as root on Debian, else its package is `strace`");
        let mut said = String::new();
        let mut stderr = BufReader::new(strace.stderr.take().unwrap());
        stderr.read_line(&mut said).unwrap();
        assert!(said.contains(" attached"), "strace may not trace the server: {said}");
        Self { strace, _stderr: stderr }
    }
}

impl Drop for FailingCalls {
    fn drop(&mut self) {
        let id = Pid::from_raw(self.strace.id().try_into().unwrap()).unwrap();
        // It lets the server go on as before. It may have ended with it.
        let _ = kill_process(id, Signal::INT);
        let _ = self.strace.wait();
    }
}
