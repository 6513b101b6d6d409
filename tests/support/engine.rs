//! Which ClickHouse a test runs against: the embedded one, unless `TEST_CLICKHOUSE` names another.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The embedded one's name.
const EMBEDDED: &str = "26.7";

/// Names, packages and versions of the others, as `scripts/clickhouse-versions/fetch.sh` reads them.
const PINNED: &str = include_str!("../../scripts/clickhouse-versions/pinned");

/// A version of ClickHouse, by the first two numbers of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Engine(&'static str);

impl Engine {
    /// The one that the tests run against.
    pub fn of_the_tests() -> Self {
        match std::env::var("TEST_CLICKHOUSE") {
            Ok(name) => Self::named(&name),
            Err(_) => Self(EMBEDDED),
        }
    }

    /// One that a test names itself.
    pub fn named(name: &str) -> Self {
        let known = pinned().map(|[name, ..]| name).chain([EMBEDDED]);
        let found = known.clone().find(|known| *known == name);
        Self(found.unwrap_or_else(|| panic!("there is no ClickHouse {name}, but {:?}", known.collect::<Vec<_>>())))
    }

    pub fn name(self) -> &'static str {
        self.0
    }

    /// True when the process that is started runs the engine in a child of its own.
    pub(super) fn is_child_of_its_process(self) -> bool {
        self.0 == EMBEDDED
    }

    /// The process that serves `path` at `address`; its standard input is a pipe that ends it.
    pub(super) fn command(self, path: &Path, address: SocketAddr) -> Command {
        let port = address.port().to_string();
        let mut command;
        if self.0 == EMBEDDED {
            command = Command::new(env!("CARGO_BIN_EXE_sluicegate"));
            command.args(["clickhouse", "--http-port", &port, "--path"]).arg(path);
        } else {
            command = Command::new("python3");
            command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/clickhouse-versions/serve.py"));
            command.arg(self.wheel()).arg(path).arg(port);
        }
        // The engine takes a `config.xml` in this folder.
        command.current_dir(path.parent().unwrap()).stdin(Stdio::piped());
        command
    }

    /// The folder of its unpacked wheel.
    fn wheel(self) -> PathBuf {
        let [name, package, version, _] = pinned().find(|[name, ..]| *name == self.0).unwrap();
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"));
        let wheel = cache.join(format!("sluicegate/clickhouse-{name}-{package}-{version}"));
        assert!(
            wheel.is_dir(),
            "ClickHouse {name} is not at {}: `scripts/clickhouse-versions/fetch.sh {name}` fetches it",
            wheel.display()
        );
        wheel
    }
}

/// Name, package, version and hash.
fn pinned() -> impl Iterator<Item = [&'static str; 4]> + Clone {
    let lines = PINNED.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split(' ').collect::<Vec<_>>().try_into().expect("a line of four words"))
}
