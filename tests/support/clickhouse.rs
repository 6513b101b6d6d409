//! A real ClickHouse, as a process of its own.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{Engine, FailingCalls, Folder, free_address, wait_for};

/// Ends with its value; a static one ends with the test's process, whose end closes the pipe.
pub struct ClickHouse {
    /// Goes when this goes, if it was made for it.
    folder: Option<Folder>,
    path: PathBuf,
    address: SocketAddr,
    engine: Engine,
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
        Self::start_engine(Engine::of_the_tests(), None)
    }

    /// Starts one on an empty folder, with a configuration of its own.
    pub fn start_with_config(config: &str) -> Self {
        Self::start_engine(Engine::of_the_tests(), Some(config))
    }

    /// Starts a version that the test names, on an empty folder.
    pub fn start_engine(engine: Engine, config: Option<&str>) -> Self {
        let folder = Folder::new();
        if let Some(config) = config {
            std::fs::write(folder.path().join("config.xml"), config).unwrap();
        }
        let mut clickhouse = Self::engine_on(engine, &folder.path().join("clickhouse"));
        clickhouse.folder = Some(folder);
        clickhouse
    }

    /// Ends it and starts it again with another time zone.
    pub fn restart_in_zone(&mut self, zone: &str) {
        self.kill();
        self.child = spawn_with(self.engine, &self.path(), self.address, &[("TZ", zone)]);
        self.wait();
    }

    /// Starts one on a folder that may have tables. The engine takes a `config.xml` beside it.
    pub fn on(path: &Path) -> Self {
        Self::engine_on(Engine::of_the_tests(), path)
    }

    fn engine_on(engine: Engine, path: &Path) -> Self {
        let address = free_address();
        let child = spawn(engine, path, address);
        let mut clickhouse = Self { folder: None, path: path.to_owned(), address, engine, child };
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
        query(self.address, "", statement)
    }

    /// Runs a statement in this database with these settings, as parameters of the query.
    pub fn query_in(&self, database: &str, settings: &str, statement: &str) -> String {
        let answer = query(self.address, &format!("/?database={database}&{settings}"), statement);
        answer.unwrap_or_else(|error| panic!("{statement}: {error}"))
    }

    /// From now on the process that is the engine is killed instead of the rename that makes the
    /// `nth` part of a table visible. [`Self::wait_for_end`] comes next.
    pub fn kill_at_part(&self, database: &str, table: &str, nth: u32) -> FailingCalls {
        let month = self.query("SELECT toYYYYMM(now('UTC'))");
        let part = format!("tmp_insert_{}_{nth}_{nth}_0", month.trim());
        FailingCalls::killing(self.engine_id(), "rename", &self.path_of(database, table, &part))
    }

    /// From now on the rename that makes a part of a table visible fails, as on a disk that does.
    pub fn fail_at_part(&self, database: &str, table: &str, part: &str) -> FailingCalls {
        FailingCalls::naming(self.engine_id(), "rename", &self.path_of(database, table, part), "EIO")
    }

    fn path_of(&self, database: &str, table: &str, part: &str) -> String {
        let folder =
            format!("SELECT data_paths[1] FROM system.tables WHERE database = '{database}' AND name = '{table}'");
        format!("{}{part}/", self.query(&folder).trim())
    }

    fn engine_id(&self) -> u32 {
        let engine = self.engine_process().expect("the engine runs");
        engine.as_raw_pid().try_into().unwrap()
    }

    /// Waits until it has ended by itself.
    pub fn wait_for_end(&mut self) {
        wait_for(|| "ClickHouse runs".to_owned(), || self.child.try_wait().unwrap());
    }

    /// SIGKILL, to the process that is the engine.
    pub fn kill(&mut self) {
        let engine = self.engine_process().expect("the engine runs");
        kill_process(engine, Signal::KILL).unwrap();
        // A process whose child it is sees that, and ends too.
        self.child.wait().unwrap();
    }

    /// SIGSTOP: it takes connections and answers nothing.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.engine_process().expect("the engine runs"), signal).unwrap();
    }

    /// Starts it again on the same folder and port.
    pub fn restart(&mut self) {
        self.restart_as(self.engine);
    }

    /// The same, as another version: an upgrade, or a downgrade.
    pub fn restart_as(&mut self, engine: Engine) {
        self.engine = engine;
        self.child = spawn(engine, &self.path, self.address);
        self.wait();
    }

    /// Ends it in order.
    pub fn stop(&mut self) {
        drop(self.child.stdin.take());
        self.wait_for_end();
    }

    pub fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// The process that is the engine: the one that was started, or its only child.
    fn engine_process(&self) -> Option<Pid> {
        let id = self.child.id();
        if !self.engine.is_child_of_its_process() {
            return Pid::from_raw(id.try_into().ok()?);
        }
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
        Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)
    }

    fn wait(&mut self) {
        let log = || std::fs::read_to_string(self.path.join("clickhouse.log")).unwrap_or_default();
        let name = self.engine.name();
        let version = wait_for(
            || format!("ClickHouse {name} does not answer: {}", log()),
            || {
                let ended = self.child.try_wait().unwrap();
                assert!(ended.is_none(), "ClickHouse {name} did not start, {ended:?}: {}", log());
                query(self.address, "", "SELECT version()").ok()
            },
        );
        assert!(version.starts_with(&format!("{name}.")), "ClickHouse {name} says that it is {version}");
    }
}

impl Drop for ClickHouse {
    fn drop(&mut self) {
        // In order, unless its tables go with it: that takes seconds.
        match self.engine_process().filter(|_| self.folder.is_some()) {
            Some(engine) => drop(kill_process(engine, Signal::KILL)),
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

fn query(address: SocketAddr, target: &str, statement: &str) -> Result<String, String> {
    let request = http_client().post(format!("http://{address}{target}")).body(statement.to_owned());
    let response = request.send().map_err(|error| format!("{error:?}"))?;
    let succeeded = response.status() == 200;
    let text = response.text().map_err(|error| error.to_string())?;
    if succeeded { Ok(text) } else { Err(text) }
}

fn spawn(engine: Engine, path: &Path, address: SocketAddr) -> Child {
    spawn_with(engine, path, address, &[])
}

fn spawn_with(engine: Engine, path: &Path, address: SocketAddr, environment: &[(&str, &str)]) -> Child {
    let mut command = engine.command(path, address);
    command.envs(environment.iter().copied()).stdout(Stdio::null());
    if !engine.is_child_of_its_process() {
        std::fs::create_dir_all(path).unwrap();
        let log = File::create(path.join("clickhouse.log")).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
    }
    command.spawn().unwrap_or_else(|error| panic!("{:?}: {error}", command.get_program()))
}
