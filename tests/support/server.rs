//! The server's real binary as a process.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process};

use super::{ClickHouse, Folder, Response, SmallDisk, free_address, get, wait_for};

/// A running server; killed with its value.
pub struct Server {
    child: Child,
    setup: Setup,
}

#[derive(Clone)]
struct Setup {
    folder: Arc<Folder>,
    address: SocketAddr,
    admin: SocketAddr,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    disk: Option<Arc<SmallDisk>>,
    /// Its log is a pipe that nobody reads any more, or that nobody reads while it is open.
    pipe: Option<Pipe>,
    /// What a shell does before it becomes the server.
    before: Option<String>,
    /// A listening socket that it gets as systemd passes one.
    passed: Option<Arc<TcpListener>>,
    /// Where the test sees the files of the table's segments.
    segments: PathBuf,
    program: String,
}

/// This release.
const PROGRAM: &str = env!("CARGO_BIN_EXE_sluicegate");

#[derive(Clone)]
enum Pipe {
    Closed,
    Deaf { _reader: Arc<std::io::PipeReader>, writer: Arc<std::io::PipeWriter> },
}

/// A server that was told to stop.
pub struct Stopping(Server);

impl Server {
    /// Starts it with a spool of its own, and waits until it takes events.
    pub fn start(clickhouse: &ClickHouse, database: &str, flags: &[&str]) -> Self {
        Self::start_with_environment(clickhouse, database, flags, &[])
    }

    pub fn start_with_environment(
        clickhouse: &ClickHouse,
        database: &str,
        flags: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let server = Setup::new(clickhouse, database, flags, environment).spawn();
        server.wait_until_ready();
        server
    }

    /// Starts it with a log that can't be written: whoever read the pipe is gone.
    pub fn start_unheard(clickhouse: &ClickHouse, database: &str, flags: &[&str]) -> Self {
        let server = Setup { pipe: Some(Pipe::Closed), ..Setup::new(clickhouse, database, flags, &[]) }.spawn();
        server.wait_until_ready();
        server
    }

    /// Starts it with a log that is a pipe whose reader hangs.
    pub fn start_to_a_deaf_reader(clickhouse: &ClickHouse, database: &str, flags: &[&str]) -> Self {
        let (reader, mut writer) = std::io::pipe().unwrap();
        // As much as a pipe holds: the next byte waits.
        writer.write_all(&[b'.'; 64 << 10]).unwrap();
        let pipe = Some(Pipe::Deaf { _reader: Arc::new(reader), writer: Arc::new(writer) });
        let server = Setup { pipe, ..Setup::new(clickhouse, database, flags, &[]) }.spawn();
        server.wait_until_ready();
        server
    }

    /// Starts it out of a shell that does this first, such as to set a limit.
    pub fn start_after(before: &str, clickhouse: &ClickHouse, database: &str, flags: &[&str]) -> Self {
        let before = Some(before.to_owned());
        let server = Setup { before, ..Setup::new(clickhouse, database, flags, &[]) }.spawn();
        server.wait_until_ready();
        server
    }

    /// Starts it with a listening socket, as systemd does with one of its own.
    pub fn start_at(
        passed: TcpListener,
        clickhouse: &ClickHouse,
        database: &str,
        flags: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let before = "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$; export LISTEN_FDS LISTEN_PID";
        let (address, setup) = (passed.local_addr().unwrap(), Setup::new(clickhouse, database, flags, environment));
        let (before, passed) = (Some(before.to_owned()), Some(Arc::new(passed)));
        let server = Setup { before, passed, address, ..setup }.spawn();
        server.wait_until_ready();
        server
    }

    /// Starts it and waits only until the admin address answers.
    pub fn start_unready(clickhouse: &ClickHouse, database: &str, flags: &[&str]) -> Self {
        let server = Setup::new(clickhouse, database, flags, &[]).spawn();
        server.wait_until_there();
        server
    }

    /// Starts it with its spool on a small disk, and waits only until the admin address answers.
    pub fn start_on(disk: &Arc<SmallDisk>, clickhouse: &ClickHouse, database: &str, flags: &[&str]) -> Self {
        let spool = disk.path().join("spool").to_string_lossy().into_owned();
        let flags = [&["--spool-dir", &spool], flags].concat();
        let segments = disk.seen_from_outside().join("spool/log");
        let setup = Setup { disk: Some(disk.clone()), segments, ..Setup::new(clickhouse, database, &flags, &[]) };
        let server = setup.spawn();
        server.wait_until_there();
        server
    }

    fn wait_until_there(&self) {
        wait_for(|| self.log(), || TcpStream::connect(self.setup.admin).ok());
    }

    /// Starts one that has to end by itself; how it ended, and what it said.
    pub fn expect_failure(clickhouse: &ClickHouse, database: &str, flags: &[&str]) -> (ExitStatus, String) {
        let mut server = Setup::new(clickhouse, database, flags, &[]).spawn();
        (server.wait_for_end(), server.log())
    }

    pub fn address(&self) -> SocketAddr {
        self.setup.address
    }

    pub fn admin_address(&self) -> SocketAddr {
        self.setup.admin
    }

    pub fn spool_dir(&self) -> PathBuf {
        self.setup.spool_dir()
    }

    /// Where its spool and its log are, as long as somebody has this.
    pub fn folder(&self) -> Arc<Folder> {
        self.setup.folder.clone()
    }

    /// Everything that it wrote to standard error, over its restarts.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.setup.log_path()).unwrap_or_default()
    }

    #[track_caller]
    pub fn admin_get(&self, target: &str) -> Response {
        get(self.setup.admin, target)
    }

    pub fn wait_until_ready(&self) {
        wait_for(
            || format!("the server is not ready:\n{}", self.log()),
            || {
                TcpStream::connect(self.setup.admin).ok()?;
                (self.admin_get("/readyz").status == 200).then_some(())
            },
        );
    }

    /// Waits until a table has so many rows.
    pub fn wait_for_rows(&self, clickhouse: &ClickHouse, table: &str, rows: u64) {
        let count = || clickhouse.query(&format!("SELECT count() FROM {table}")).trim().to_owned();
        wait_for(
            || format!("{table} has {} rows instead of {rows}:\n{}", count(), self.log()),
            || (count() == rows.to_string()).then_some(()),
        );
    }

    /// Samples of `/metrics` by series.
    pub fn metrics(&self) -> HashMap<String, f64> {
        let text = self.admin_get("/metrics").text();
        let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
        samples.map(|(series, value)| (series.to_owned(), value.parse().unwrap())).collect()
    }

    /// A figure of the kernel's about its memory, in bytes.
    pub fn memory(&self, figure: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(figure)?.strip_prefix(':')).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    pub fn kill9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again after its end, on the same spool and addresses.
    pub fn start_again(&self) -> Self {
        let server = self.setup.spawn();
        server.wait_until_ready();
        server
    }

    /// Kills it and starts it with these environment variables too.
    pub fn restart_with_environment(mut self, environment: &[(&str, &str)]) -> Self {
        self.set_environment(environment);
        self.restart()
    }

    /// From its next start on, these environment variables too.
    pub fn set_environment(&mut self, environment: &[(&str, &str)]) {
        self.setup.environment.retain(|(name, _)| environment.iter().all(|(new, _)| new != name));
        self.setup.environment.extend(environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())));
    }

    /// The same, without waiting until it takes events.
    pub fn start_again_unready(&self) -> Self {
        let server = self.setup.spawn();
        server.wait_until_there();
        server
    }

    /// The same, without any wait.
    pub fn spawn_again(&self) -> Self {
        self.setup.spawn()
    }

    /// Starts another release of the program, if one is named.
    pub fn start_release(program: Option<&str>, clickhouse: &ClickHouse, database: &str, flags: &[&str]) -> Self {
        let mut setup = Setup::new(clickhouse, database, flags, &[]);
        setup.program = program.unwrap_or(PROGRAM).to_owned();
        let server = setup.spawn();
        server.wait_until_ready();
        server
    }

    /// This release on its spool, after it has ended, with more flags; without any wait.
    pub fn upgrade(&self, flags: &[&str]) -> Self {
        let mut setup = self.setup.clone();
        setup.program = PROGRAM.to_owned();
        setup.arguments.extend(flags.iter().map(|&flag| flag.to_owned()));
        setup.spawn()
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it ends by itself.
    pub fn wait_for_end(&mut self) -> ExitStatus {
        let log = || std::fs::read_to_string(self.setup.log_path()).unwrap_or_default();
        wait_for(|| format!("the server runs:\n{}", log()), || self.child.try_wait().unwrap())
    }

    /// Panics with the log if it has ended by itself.
    pub fn assert_runs(&mut self) {
        let ended = self.child.try_wait().unwrap();
        assert!(ended.is_none(), "the server ended by itself, {ended:?}:\n{}", self.log());
    }

    /// Waits until everything is in ClickHouse: no block is left, neither with events nor with
    /// rejected lines.
    pub fn wait_until_drained(&self) {
        wait_for(
            || format!("the spool is not empty: {:?}\n{}", self.spooled_files(), self.log()),
            || self.spooled_files().is_empty().then_some(()),
        );
    }

    /// The same of what an older release left too, which lies in the folders of tables.
    pub fn wait_until_nothing_is_spooled(&self) {
        let spooled = || self.metrics().into_iter().filter(|(name, _)| name.starts_with("sluicegate_events_spooled"));
        wait_for(
            || format!("events wait: {:?}\n{}", spooled().collect::<Vec<_>>(), self.log()),
            || spooled().all(|(_, events)| events == 0.0).then_some(()),
        );
    }

    /// Names of the files of segments that have events and wait.
    pub fn spooled_files(&self) -> Vec<String> {
        let folder = std::fs::read_dir(&self.setup.segments).unwrap();
        let names = folder.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
        let has_events =
            |name: &String| has_a_frame(&std::fs::read(self.setup.segments.join(name)).unwrap_or_default());
        names.filter(|name| name.ends_with(".copy") || name.ends_with(".segment") && has_events(name)).collect()
    }

    /// Stops it in order, without waiting for ClickHouse, and starts it again.
    pub fn restart(mut self) -> Self {
        self.kill9();
        self.start_again()
    }

    /// SIGTERM, and how it ended. By then every byte that was in flight has to be given back.
    pub fn stop(self) -> ExitStatus {
        self.wait_until_nothing_is_in_flight();
        self.begin_stop().wait()
    }

    /// Waits until no partial request, batch or reply takes anything of the budget.
    pub fn wait_until_nothing_is_in_flight(&self) {
        let in_flight = || self.metrics()["sluicegate_in_flight_bytes"];
        wait_for(
            || format!("{} bytes stay in flight:\n{}", in_flight(), self.log()),
            || (in_flight() == 0.0).then_some(()),
        );
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    pub fn begin_stop(self) -> Stopping {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        Stopping(self)
    }
}

impl Stopping {
    /// Waits until the server knows that it stops.
    pub fn wait_until_unready(&self) {
        wait_for(|| "the server stays ready".to_owned(), || (self.0.admin_get("/readyz").status == 503).then_some(()));
    }

    pub fn wait(mut self) -> ExitStatus {
        let child = &mut self.0.child;
        let log_path = self.0.setup.log_path();
        let log = || std::fs::read_to_string(&log_path).unwrap_or_default();
        wait_for(|| format!("the server does not stop:\n{}", log()), || child.try_wait().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Setup {
    fn new(clickhouse: &ClickHouse, database: &str, flags: &[&str], environment: &[(&str, &str)]) -> Self {
        let (address, admin) = (free_address(), free_address());
        let folder = Arc::new(Folder::new());
        let spool = folder.path().join("spool");
        let mut arguments: Vec<String> = Vec::new();
        let defaults = [
            ("--listen", address.to_string()),
            ("--admin-listen", admin.to_string()),
            ("--clickhouse-url", clickhouse.url()),
            ("--database", database.to_owned()),
            ("--spool-dir", spool.to_string_lossy().into_owned()),
            ("--batch-age", "100ms".to_owned()),
            ("--disk-free-min", "0B".to_owned()),
            ("--log-format", "json".to_owned()),
        ];
        for (flag, value) in defaults.into_iter().filter(|(flag, _)| !flags.contains(flag)) {
            arguments.extend([flag.to_owned(), value]);
        }
        arguments.extend(flags.iter().map(|&flag| flag.to_owned()));
        let environment = environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self {
            folder,
            address,
            admin,
            arguments,
            environment,
            disk: None,
            pipe: None,
            before: None,
            passed: None,
            segments: spool.join("log"),
            program: PROGRAM.to_owned(),
        }
    }

    fn spawn(&self) -> Server {
        let log = match &self.pipe {
            Some(Pipe::Closed) => Stdio::from(std::io::pipe().unwrap().1),
            Some(Pipe::Deaf { writer, .. }) => Stdio::from(writer.try_clone().unwrap()),
            None => File::options().create(true).append(true).open(self.log_path()).unwrap().into(),
        };
        let program = self.program.as_str();
        let mut command = self.disk.as_ref().map_or_else(|| Command::new(program), |disk| disk.command(program));
        if let Some(before) = &self.before {
            command = Command::new("sh");
            command.args(["-c", &format!("{before}; exec \"$0\" \"$@\""), program]);
        }
        let child = command
            .arg("serve")
            .args(&self.arguments)
            .envs(self.environment.iter().cloned())
            .stdin(
                self.passed
                    .as_ref()
                    .map_or_else(Stdio::null, |passed| Stdio::from(OwnedFd::from(passed.try_clone().unwrap()))),
            )
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Server { child, setup: self.clone() }
    }

    fn spool_dir(&self) -> PathBuf {
        self.folder.path().join("spool")
    }

    fn log_path(&self) -> PathBuf {
        Path::new(self.folder.path()).join("log")
    }
}

/// True for the bytes of a segment's file that has a frame of its own: one is always ready for the next
/// events, and a recycled file has frames of its former life.
fn has_a_frame(bytes: &[u8]) -> bool {
    let number = |at: usize| bytes.get(at..at + 8).map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
    let Some(identity_len) = bytes.get(12..16).map(|len| u32::from_le_bytes(len.try_into().unwrap())) else {
        return true;
    };
    let frame = identity_len as usize + 16384;
    bytes.get(frame..).is_some_and(|frame| frame.starts_with(b"FRAM")) && number(frame + 56) == number(24)
}
