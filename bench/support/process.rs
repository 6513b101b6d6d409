//! Processes under test: start, wait until they answer, CPU time, memory, end.

// Each benchmark is a crate of its own and uses its share of this.
#![allow(dead_code)]

use std::error::Error;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::columns;

/// A child process that ends with its handle.
pub struct Child(std::process::Child);

impl Child {
    /// Starts `program` and waits until `address` accepts connections.
    pub fn start(program: impl AsRef<OsStr>, arguments: &[&str], address: SocketAddr) -> Result<Self, Box<dyn Error>> {
        Self::start_logging(program, arguments, address, Stdio::inherit())
    }

    /// The same; its standard error goes to `log`.
    pub fn start_logging(
        program: impl AsRef<OsStr>,
        arguments: &[&str],
        address: SocketAddr,
        log: Stdio,
    ) -> Result<Self, Box<dyn Error>> {
        let mut child = Self(Command::new(program).args(arguments).stdin(Stdio::piped()).stderr(log).spawn()?);
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(address).is_err() {
            if let Some(status) = child.0.try_wait()? {
                return Err(format!("{arguments:?} ended with {status}").into());
            }
            if Instant::now() > deadline {
                return Err(format!("{arguments:?} does not answer at {address}").into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(child)
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// CPU time of all its threads and of its children's so far, from the scheduler's own accounts
    /// (nanoseconds, where `/proc/PID/stat` counts ticks of 10 ms).
    pub fn cpu_time(&self) -> Result<Duration, Box<dyn Error>> {
        self.cpu_time_of("")
    }

    /// The same, of the threads whose names begin so.
    pub fn cpu_time_of(&self, name: &str) -> Result<Duration, Box<dyn Error>> {
        let mut nanoseconds: u64 = 0;
        let mut processes = vec![self.0.id()];
        while let Some(process) = processes.pop() {
            for task in fs::read_dir(format!("/proc/{process}/task"))? {
                let task = task?.path();
                // A thread may end between two lines; none of those that serve does.
                let read = |figure: &str| fs::read_to_string(task.join(figure)).unwrap_or_default();
                if read("comm").starts_with(name) {
                    nanoseconds += read("schedstat").split(' ').next().unwrap_or_default().parse().unwrap_or(0);
                }
                for child in read("children").split_whitespace() {
                    processes.push(child.parse()?);
                }
            }
        }
        Ok(Duration::from_nanos(nanoseconds))
    }
}

impl Child {
    /// A figure of the kernel's about its memory, in bytes.
    pub fn memory(&self, figure: &str) -> Result<u64, Box<dyn Error>> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(figure)?.strip_prefix(':'));
        Ok(line.ok_or("the kernel does not say it")?.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An embedded ClickHouse on a folder of its own.
pub struct ClickHouse {
    url: String,
    address: SocketAddr,
    child: Child,
    folder: tempfile::TempDir,
}

impl ClickHouse {
    /// Starts it and waits until it answers.
    pub fn start() -> Result<Self, Box<dyn Error>> {
        Self::start_as(0)
    }

    /// The same, of a niceness: with 19 it has what the others leave, as if it had a machine of its own.
    pub fn start_as(niceness: u8) -> Result<Self, Box<dyn Error>> {
        let folder = tempfile::tempdir()?;
        let address = free_address()?;
        let (path, port, niceness) =
            (folder.path().join("clickhouse"), address.port().to_string(), niceness.to_string());
        let program = env!("CARGO_BIN_EXE_sluicegate");
        let arguments =
            ["-n", &niceness, program, "clickhouse", "--path", &path.to_string_lossy(), "--http-port", &port];
        let child = Child::start("nice", &arguments, address)?;
        Ok(Self { url: format!("http://{address}"), address, child, folder })
    }

    /// Its HTTP interface.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where its HTTP interface listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The process.
    pub fn child(&self) -> &Child {
        &self.child
    }

    /// A folder that goes when it goes.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Makes the table `bench.nothing`, which takes the sample events and keeps none.
    pub fn create_null_table(&self) -> Result<(), Box<dyn Error>> {
        self.query("CREATE DATABASE bench")?;
        self.query(&format!("CREATE TABLE bench.nothing ({}) ENGINE = Null", columns::definitions()))?;
        Ok(())
    }

    /// Runs a statement and returns what it printed.
    pub fn query(&self, statement: &str) -> Result<String, Box<dyn Error>> {
        use std::io::Write;
        let mut stream = TcpStream::connect(self.address)?;
        write!(stream, "POST / HTTP/1.0\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{statement}", statement.len())?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply)?;
        match reply.split_once("\r\n\r\n") {
            Some((head, body)) if head.contains(" 200 ") => Ok(body.to_owned()),
            _ => Err(reply.into()),
        }
    }
}

/// A server whose rows go into `bench.nothing`, and its address.
pub fn serve(clickhouse: &ClickHouse, durability: &str, more: &[&str]) -> Result<(Child, SocketAddr), Box<dyn Error>> {
    serve_into(clickhouse, "nothing", durability, more)
}

/// A server whose rows go into a table of the database `bench`, and its address.
pub fn serve_into(
    clickhouse: &ClickHouse,
    table: &str,
    durability: &str,
    more: &[&str],
) -> Result<(Child, SocketAddr), Box<dyn Error>> {
    let (server, address, _) = serve_with_admin(clickhouse, table, durability, more)?;
    Ok((server, address))
}

/// As [`serve_into`], with its admin address too.
pub fn serve_with_admin(
    clickhouse: &ClickHouse,
    table: &str,
    durability: &str,
    more: &[&str],
) -> Result<(Child, SocketAddr, SocketAddr), Box<dyn Error>> {
    serve_logging(clickhouse, table, durability, &[&["--log-level", "warn"], more].concat(), Stdio::inherit())
}

/// The same with a log of its own, whose level `more` has to say.
pub fn serve_logging(
    clickhouse: &ClickHouse,
    table: &str,
    durability: &str,
    more: &[&str],
    log: Stdio,
) -> Result<(Child, SocketAddr, SocketAddr), Box<dyn Error>> {
    let (address, admin_address) = (free_address()?, free_address()?);
    let (listen, admin) = (address.to_string(), admin_address.to_string());
    let spool = clickhouse.folder().join(format!("spool-{}", address.port()));
    let spool = spool.to_string_lossy();
    let mut arguments = vec!["serve", "--listen", &listen, "--admin-listen", &admin];
    if !more.contains(&"--clickhouse-url") {
        arguments.extend(["--clickhouse-url", clickhouse.url()]);
    }
    arguments.extend(["--database", "bench"]);
    if !more.contains(&"--config") {
        arguments.extend(["--table", table]);
    }
    arguments.extend(["--spool-dir", &spool, "--durability", durability]);
    arguments.extend(more);
    // Another build may be measured, such as that of a former commit.
    let program = std::env::var_os("BENCH_SLUICEGATE").unwrap_or_else(|| env!("CARGO_BIN_EXE_sluicegate").into());
    Ok((Child::start_logging(program, &arguments, address, log)?, address, admin_address))
}

/// A number from the environment.
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// A number from the environment; without it `usual`, or `quick` when the run is only to see that it
/// runs at all (`--quick`).
pub fn size(name: &str, usual: u64, quick: u64) -> u64 {
    setting(name, if is_quick() { quick } else { usual })
}

/// True with `--quick`.
pub fn is_quick() -> bool {
    std::env::args().any(|argument| argument == "--quick")
}

/// A port that was free a moment ago.
pub fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// Pins the calling thread.
pub fn pin(core: usize) {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    if let Some(core) = cores.get(core) {
        core_affinity::set_for_current(*core);
    }
}

/// Calls `start` on one core: what it starts stays there. The caller goes where it was.
pub fn on_core<T>(core: usize, start: impl FnOnce() -> T) -> Result<T, Box<dyn Error>> {
    let before = rustix::thread::sched_getaffinity(None)?;
    pin(core);
    let started = start();
    rustix::thread::sched_setaffinity(None, &before)?;
    Ok(started)
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
