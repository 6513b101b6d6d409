//! A real ClickHouse: the embedded one, as its own process.

use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::{FailingCalls, Folder, free_address, wait_for};

/// Ends with its value; a static one ends with the test's process, whose end closes the pipe.
pub struct ClickHouse {
    /// Goes when this goes, if it was made for it.
    folder: Option<Folder>,
    path: PathBuf,
    address: SocketAddr,
    child: Child,
}

/// One for all tests of a file.
pub fn shared_clickhouse() -> &'static ClickHouse {
    static SHARED: OnceLock<ClickHouse> = OnceLock::new();
    SHARED.get_or_init(ClickHouse::start)
}

impl ClickHouse {
    /// Starts one on an empty folder.
    pub fn start() -> Self {
        let folder = Folder::new();
        let path = folder.path().join("clickhouse");
        let mut clickhouse = Self::on(&path);
        clickhouse.folder = Some(folder);
        clickhouse
    }

    /// Starts one on an empty folder, with a configuration of its own.
    pub fn start_with_config(config: &str) -> Self {
        let folder = Folder::new();
        std::fs::write(folder.path().join("config.xml"), config).unwrap();
        let path = folder.path().join("clickhouse");
        let mut clickhouse = Self::on(&path);
        clickhouse.folder = Some(folder);
        clickhouse
    }

    /// Starts one on a folder that may have tables. The engine takes a `config.xml` beside it.
    pub fn on(path: &Path) -> Self {
        let address = free_address();
        let clickhouse = Self { folder: None, path: path.to_owned(), address, child: spawn(path, address) };
        clickhouse.wait();
        clickhouse
    }

    /// Its HTTP interface.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A new, empty database.
    pub fn database(&self) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        self.query(&format!("CREATE DATABASE {name}"));
        name
    }

    /// Runs a statement; panics with ClickHouse's text when it fails.
    pub fn query(&self, statement: &str) -> String {
        self.try_query(statement).unwrap_or_else(|error| panic!("{statement}: {error}"))
    }

    pub fn try_query(&self, statement: &str) -> Result<String, String> {
        let client = http_client();
        let response =
            client.post(self.url()).body(statement.to_owned()).send().map_err(|error| format!("{error:?}"))?;
        let succeeded = response.status() == 200;
        let text = response.text().map_err(|error| error.to_string())?;
        if succeeded { Ok(text) } else { Err(text) }
    }

    /// From now on the process that is the engine is killed instead of the rename that makes the
    /// `nth` part of a table visible. [`Self::wait_for_end`] comes next.
    pub fn kill_at_part(&self, database: &str, table: &str, nth: u32) -> FailingCalls {
        let (process, path) = self.part(database, table, nth);
        FailingCalls::killing(process, "rename", &path)
    }

    /// From now on the rename that makes the `nth` part of a table visible fails.
    pub fn fail_at_part(&self, database: &str, table: &str, nth: u32) -> FailingCalls {
        let (process, path) = self.part(database, table, nth);
        FailingCalls::failing(process, "rename", "EIO", &path)
    }

    /// The process that is the engine, and the folder of a part that is not visible yet.
    fn part(&self, database: &str, table: &str, nth: u32) -> (u32, String) {
        let engine = self.engine().expect("the engine runs");
        let folder =
            format!("SELECT data_paths[1] FROM system.tables WHERE database = '{database}' AND name = '{table}'");
        let (folder, month) = (self.query(&folder), self.query("SELECT toYYYYMM(now('UTC'))"));
        let path = format!("{}tmp_insert_{}_{nth}_{nth}_0/", folder.trim(), month.trim());
        (engine.as_raw_pid().try_into().unwrap(), path)
    }

    /// Waits until it has ended by itself.
    pub fn wait_for_end(&mut self) {
        wait_for(|| "ClickHouse runs".to_owned(), || self.child.try_wait().unwrap());
    }

    /// SIGKILL, to the process that is the engine.
    pub fn kill(&mut self) {
        let engine = self.engine().expect("the engine runs");
        rustix::process::kill_process(engine, rustix::process::Signal::KILL).unwrap();
        // The foreground process sees that its engine ended, and ends too.
        self.child.wait().unwrap();
    }

    /// Starts it again on the same folder and port.
    pub fn restart(&mut self) {
        self.child = spawn(&self.path(), self.address);
        self.wait();
    }

    pub fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// The engine is the foreground process's only child.
    fn engine(&self) -> Option<rustix::process::Pid> {
        let id = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
        rustix::process::Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)
    }

    fn wait(&self) {
        let log = || std::fs::read_to_string(self.path().join("clickhouse.log")).unwrap_or_default();
        wait_for(|| format!("ClickHouse does not answer: {}", log()), || self.try_query("SELECT 1").ok());
    }
}

impl Drop for ClickHouse {
    fn drop(&mut self) {
        // In order, unless its tables go with it: that takes seconds.
        match self.engine().filter(|_| self.folder.is_some()) {
            Some(engine) => drop(rustix::process::kill_process(engine, rustix::process::Signal::KILL)),
            None => drop(self.child.stdin.take()),
        }
        let _ = self.child.wait();
    }
}

fn http_client() -> &'static reqwest::blocking::Client {
    static CLIENT: OnceLock<reqwest::blocking::Client> = OnceLock::new();
    CLIENT.get_or_init(|| {
        rustls::crypto::ring::default_provider().install_default().unwrap();
        reqwest::blocking::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build().unwrap()
    })
}

fn spawn(path: &Path, address: SocketAddr) -> Child {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sluicegate"))
        .args(["clickhouse", "--http-port", &address.port().to_string(), "--path"])
        .arg(path)
        .current_dir(path.parent().unwrap())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Its one line comes when it is ready, or nothing when it can't start.
    let mut said = [0; 1];
    let read = child.stdout.take().unwrap().read(&mut said).unwrap();
    assert_eq!(read, 1, "ClickHouse did not start on {}: {:?}", path.display(), child.wait());
    child
}
