//! System calls of a running process that fail, as on a disk that fails, or at which it is killed:
//! `strace` sits between the process and the kernel and puts an error, or the signal, in their place.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::Server;

/// Calls of one name meet this until it is dropped, or the process ends.
pub struct FailingCalls {
    strace: Child,
    /// It says a line for each new thread, and would end if nobody could hear it.
    _stderr: BufReader<ChildStderr>,
}

impl FailingCalls {
    /// All of them fail.
    pub fn of(server: &Server, call: &str, error: &str) -> Self {
        Self::inject(server.id(), call, &format!("error={error}"), &[])
    }

    /// All of them take so long.
    pub fn hanging(server: &Server, call: &str, seconds: u64) -> Self {
        Self::inject(server.id(), call, &format!("delay_enter={}", seconds * 1_000_000), &[])
    }

    /// The process is killed instead of a call that names `path` first.
    pub fn killing(process: u32, call: &str, path: &str) -> Self {
        Self::inject(process, call, "signal=KILL", &["-P", path])
    }

    /// A call that names `path` fails.
    pub fn naming(process: u32, call: &str, path: &str, error: &str) -> Self {
        Self::inject(process, call, &format!("error={error}"), &["-P", path])
    }

    fn inject(process: u32, call: &str, what: &str, flags: &[&str]) -> Self {
        let inject = format!("inject={call}:{what}");
        let mut strace = Command::new("strace")
            .args(["-f", "-o", "/dev/null", "-e", "signal=none", "-e", &format!("trace={call}"), "-e", &inject, "-p"])
            .arg(process.to_string())
            .args(flags)
            .stderr(Stdio::piped())
            .spawn()
            .expect("`strace` is needed: `make test` installs it as root on Debian, else its package is `strace`");
        let mut said = String::new();
        let mut stderr = BufReader::new(strace.stderr.take().unwrap());
        stderr.read_line(&mut said).unwrap();
        assert!(said.contains(" attached"), "strace may not trace it: {said}");
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
