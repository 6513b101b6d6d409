//! ClickHouse as a child process: the engine as a shared library, with its own HTTP interface.
//!
//! ```text
//! serve --embedded DIR ─┐
//! clickhouse --path DIR ┴─▶ Embedded ── pipe ──▶ this program again, as the engine ──▶ libchdb.so
//! ```
//!
//! The last query of the engine reads its standard input, a pipe from the parent, to the end. The
//! engine therefore ends with the parent, even if the parent is killed. The engine has its own
//! process group, because a Ctrl-C that stops the server must not end the engine before the last
//! INSERT.

#![allow(unsafe_code, reason = "a C library is loaded and called; each block says why it may")]

use std::ffi::{CStr, CString, OsString, c_char, c_int, c_void};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::server_id;

/// Environment variable that is set for the process that becomes the engine: the library's path.
const ENGINE: &str = "SLUICEGATE_BECOME_ENGINE";

/// Environment variable that names a library to load instead of the fetched one.
const LIBRARY: &str = "SLUICEGATE_CLICKHOUSE_LIBRARY";

/// Package, version and checksum of the engine; also read by `scripts/fetch-clickhouse.sh`.
const PINNED: &str = include_str!("../../scripts/clickhouse.version");

/// Time limit for the engine to answer after its start.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Time limit for the engine to end before it is killed.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// Pause between two checks of the engine's state.
const POLL_PAUSE: Duration = Duration::from_millis(50);

/// Nice value of the engine, which gives the serving threads precedence.
const NICE: i32 = 5;

/// The options of an embedded ClickHouse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddedOptions {
    /// Folder of the tables; created if it is missing.
    pub path: PathBuf,
    /// Address of the HTTP interface.
    pub host: String,
    /// Port of the HTTP interface.
    pub http_port: u16,
}

/// The reason why the embedded ClickHouse does not run, as one sentence.
#[derive(Debug)]
pub struct EmbeddedError(String);

impl fmt::Display for EmbeddedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for EmbeddedError {}

fn failed(what: impl fmt::Display) -> impl FnOnce(io::Error) -> EmbeddedError {
    let what = what.to_string();
    move |error| EmbeddedError(format!("{what}: {error}"))
}

/// A running engine. Dropping the value ends the engine.
#[derive(Debug)]
pub struct Embedded {
    child: Child,
    version: String,
}

impl Embedded {
    /// Starts the engine and waits until it answers.
    ///
    /// Must be called from a thread that is not pinned, because the child inherits the CPU affinity.
    ///
    /// # Errors
    ///
    /// If the port is in use, no engine is found, or the engine ends or does not answer in time.
    pub fn start(options: &EmbeddedOptions) -> Result<Self, EmbeddedError> {
        let EmbeddedOptions { path, host, http_port } = options;
        if answers(options) {
            return Err(EmbeddedError(format!(
                "another process listens at {host}:{http_port}; the embedded ClickHouse needs the port"
            )));
        }
        fs::create_dir_all(path).map_err(failed(format_args!("the folder {} can't be created", path.display())))?;
        // The engine can't use a relative path: it appends such a path to itself.
        let path = &path.canonicalize().map_err(failed(format_args!("the folder {} can't be used", path.display())))?;
        let options = &EmbeddedOptions { path: path.clone(), ..options.clone() };
        let log_path = path.join("clickhouse.log");
        let log = File::create(&log_path).map_err(failed(format_args!("{} can't be written", log_path.display())))?;
        let also = log.try_clone().map_err(failed("the log can't be shared"))?;
        let mut command = engine(options)?;
        let child = command
            .stdin(Stdio::piped())
            .stdout(log)
            .stderr(also)
            .process_group(0)
            .spawn()
            .map_err(failed("the embedded ClickHouse can't be started"))?;
        let mut embedded = Self { child, version: String::new() };
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(status) = embedded.try_wait() {
                let reason = last_line(&log_path).unwrap_or_else(|| status.to_string());
                return Err(EmbeddedError(format!("the embedded ClickHouse on {} ended: {reason}", path.display())));
            }
            if let Some(version) = ask(options, "/?query=SELECT%20version()") {
                embedded.version = version.trim().to_owned();
                return Ok(embedded);
            }
            if Instant::now() > deadline {
                return Err(EmbeddedError(format!("the embedded ClickHouse does not answer at {host}:{http_port}")));
            }
            std::thread::sleep(POLL_PAUSE);
        }
    }

    /// The engine's version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The exit status of the engine; `None` while it runs.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Ends the engine in order, and kills it after this time, at most [`STOP_TIMEOUT`].
    pub fn stop(mut self, within: Duration) {
        self.end(within.min(STOP_TIMEOUT));
    }

    fn end(&mut self, within: Duration) {
        // Closing the pipe ends the last query, and with it the engine.
        drop(self.child.stdin.take());
        let deadline = Instant::now() + within;
        while self.try_wait().is_none() {
            if Instant::now() > deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(POLL_PAUSE);
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.end(STOP_TIMEOUT);
    }
}

/// `sluicegate clickhouse`: runs the engine until a signal comes, or until the standard input ends
/// if it is a pipe.
///
/// # Errors
///
/// As [`Embedded::start`], and if the engine ends by itself.
pub fn run_in_foreground(options: &EmbeddedOptions) -> Result<(), EmbeddedError> {
    if let Some(library) = std::env::var_os(ENGINE) {
        return become_engine(Path::new(&library), options);
    }
    let (sender, stop) = crossbeam::channel::bounded(1);
    let by_signal = sender.clone();
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])
        .map_err(|error| EmbeddedError(format!("signals can't be handled: {error}")))?;
    std::thread::spawn(move || {
        signals.forever().for_each(|_| {
            let _ = by_signal.try_send(());
        });
    });
    let mut embedded = Embedded::start(options)?;
    let EmbeddedOptions { path, host, http_port } = options;
    println!("ClickHouse {} is ready at http://{host}:{http_port} (data in {})", embedded.version(), path.display());
    if stdin_is_a_pipe() {
        std::thread::spawn(move || {
            let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
            let _ = sender.try_send(());
        });
    }
    loop {
        if stop.recv_timeout(POLL_PAUSE * 4).is_ok() {
            embedded.stop(STOP_TIMEOUT);
            return Ok(());
        }
        if let Some(status) = embedded.try_wait() {
            return Err(EmbeddedError(format!("the embedded ClickHouse ended by itself: {status}")));
        }
    }
}

/// The command that runs the engine: this program with the library, else a `clickhouse` on PATH.
fn engine(options: &EmbeddedOptions) -> Result<Command, EmbeddedError> {
    let library = match std::env::var_os(LIBRARY) {
        Some(path) => PathBuf::from(path),
        None => fetched_library(),
    };
    if library.exists() {
        let program = std::env::current_exe().map_err(failed("this program can't be found"))?;
        let mut command = Command::new(program);
        command
            .arg("clickhouse")
            .arg("--path")
            .arg(&options.path)
            .args(["--host", &options.host, "--http-port", &options.http_port.to_string()])
            .env(ENGINE, &library);
        return Ok(command);
    }
    if std::env::var_os(LIBRARY).is_none()
        && let Some(program) = on_path("clickhouse")
    {
        let mut command = Command::new(program);
        command.arg("local").args(engine_arguments(options)?);
        return Ok(command);
    }
    Err(EmbeddedError(format!(
        "there is no embedded ClickHouse at {} and no clickhouse on PATH; `make clickhouse` fetches it",
        library.display()
    )))
}

fn fetched_library() -> PathBuf {
    let version = PINNED.lines().find_map(|line| line.strip_prefix("version=")).unwrap_or_default();
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = cache.or_else(home).unwrap_or_else(|| PathBuf::from(".cache"));
    cache.join("sluicegate").join(format!("clickhouse-{version}")).join("libchdb.so")
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|candidate| candidate.is_file())
}

/// Arguments of `clickhouse local`. The second query only keeps the process alive, and with it the
/// HTTP interface that the first one starts.
fn engine_arguments(options: &EmbeddedOptions) -> Result<Vec<OsString>, EmbeddedError> {
    const QUERY: &str = "SYSTEM START LISTEN HTTP; SELECT count() FROM file('/dev/stdin', LineAsString, 'line String')";
    let id = server_id::of_folder(&options.path).map_err(failed("the embedded ClickHouse has no identity"))?;
    let mut path = OsString::from("--path=");
    path.push(&options.path);
    let mut arguments = vec![
        path,
        format!("--listen_host={}", options.host).into(),
        format!("--http_port={}", options.http_port).into(),
        format!("--query={QUERY}").into(),
        "--".into(),
        // The engine looks for macros only if the key itself has a value.
        "--macros=1".into(),
        format!("--macros.{}={id}", server_id::MACRO).into(),
    ];
    arguments.extend(memory_cap().map(|bytes| format!("--max_server_memory_usage={bytes}").into()));
    Ok(arguments)
}

/// Memory limit of the engine: half of the machine's memory. The other half is for sluicegate and the
/// page cache.
fn memory_cap() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = total.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024 / 2)
}

/// Runs in the child: loads the library and runs the engine in it until the standard input ends.
fn become_engine(library: &Path, options: &EmbeddedOptions) -> Result<(), EmbeddedError> {
    type QueryCmdline = unsafe extern "C" fn(c_int, *const *const c_char) -> *mut c_void;
    type ResultError = unsafe extern "C" fn(*mut c_void) -> *const c_char;

    // A failure to lower the priority does no harm.
    let _ = rustix::process::nice(NICE);
    let not_loaded =
        |error: libloading::Error| EmbeddedError(format!("{} can't be loaded: {error}", library.display()));
    // SAFETY: loading runs the library's initialisers. The library is the pinned build of ClickHouse
    // or one that the operator named, and this process runs nothing else.
    let loaded = unsafe { libloading::Library::new(library) }.map_err(not_loaded)?;
    // SAFETY: the signature is the one that the library's header declares:
    // `chdb_result * chdb_query_cmdline(int argc, char ** argv)`.
    let query = unsafe { loaded.get::<QueryCmdline>(c"chdb_query_cmdline") }.map_err(not_loaded)?;
    // SAFETY: `const char * chdb_result_error(chdb_result * result)`, likewise.
    let error_of = unsafe { loaded.get::<ResultError>(c"chdb_result_error") }.map_err(not_loaded)?;

    let arguments = std::iter::once(OsString::from("clickhouse")).chain(engine_arguments(options)?);
    let arguments = arguments
        .map(|argument| CString::new(argument.into_encoded_bytes()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| EmbeddedError("the path of the embedded ClickHouse has a zero byte".to_owned()))?;
    let pointers: Vec<*const c_char> = arguments.iter().map(|argument| argument.as_ptr()).collect();
    let count = c_int::try_from(pointers.len()).unwrap_or(c_int::MAX);
    // SAFETY: `pointers` are `count` zero-terminated strings that live until the call returns.
    let result = unsafe { query(count, pointers.as_ptr()) };
    if result.is_null() {
        return Ok(());
    }
    // SAFETY: the call above returned `result`, which is not freed before the process ends.
    let error = unsafe { error_of(result) };
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: a non-null error is a zero-terminated string that belongs to `result`.
    let error = unsafe { CStr::from_ptr(error) };
    Err(EmbeddedError(error.to_string_lossy().into_owned()))
}

fn answers(options: &EmbeddedOptions) -> bool {
    connect(options).is_some()
}

fn connect(options: &EmbeddedOptions) -> Option<TcpStream> {
    let addresses = (options.host.as_str(), options.http_port).to_socket_addrs().ok()?;
    addresses.into_iter().find_map(|address| TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok())
}

/// The body of a reply with status 200.
fn ask(options: &EmbeddedOptions, target: &str) -> Option<String> {
    let mut stream = connect(options)?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut reply = String::new();
    stream.take(64 << 10).read_to_string(&mut reply).ok()?;
    let (head, body) = reply.split_once("\r\n\r\n")?;
    head.contains(" 200 ").then(|| body.to_owned())
}

fn last_line(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().rev().find(|line| !line.trim().is_empty()).map(|line| line.chars().take(500).collect())
}

fn stdin_is_a_pipe() -> bool {
    use std::os::unix::fs::FileTypeExt;
    fs::metadata("/dev/stdin").is_ok_and(|metadata| metadata.file_type().is_fifo())
}
