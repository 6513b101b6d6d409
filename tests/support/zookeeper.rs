//! A real ZooKeeper, as Debian's packages `zookeeper` and `default-jre-headless` have it.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{Folder, free_address, wait_for};

/// Ends with its value, or with the test's process, whose end closes the pipe; its data are kept over a kill.
pub struct ZooKeeper {
    folder: Folder,
    address: SocketAddr,
    child: Child,
}

impl ZooKeeper {
    pub fn start() -> Self {
        let (folder, address) = (Folder::new(), free_address());
        // Sessions of a killed ClickHouse end after seconds.
        let configuration = format!(
            "tickTime=500\ndataDir={}\nclientPort={}\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\n\
             4lw.commands.whitelist=srvr\nmaxClientCnxns=0\n",
            folder.path().display(),
            address.port()
        );
        std::fs::write(folder.path().join("zoo.cfg"), configuration).unwrap();
        let child = spawn(&folder);
        let zookeeper = Self { folder, address, child };
        zookeeper.wait();
        zookeeper
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }

    /// Starts it again on the same folder and port.
    pub fn restart(&mut self) {
        self.remove_empty_logs();
        self.child = spawn(&self.folder);
        self.wait();
    }

    /// A log that was created just before a kill has no header, and ZooKeeper 3.8 does not start over one.
    fn remove_empty_logs(&self) {
        let files = std::fs::read_dir(self.folder.path().join("version-2")).unwrap().map(Result::unwrap);
        for file in files.filter(|file| file.metadata().unwrap().len() == 0) {
            std::fs::remove_file(file.path()).unwrap();
        }
    }

    fn wait(&self) {
        let log = || std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        wait_for(
            || format!("ZooKeeper does not answer (`make test-outside` installs it, and Java): {}", log()),
            || {
                let mut stream = TcpStream::connect(self.address).ok()?;
                // Early in its start it takes the question and never answers.
                stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
                stream.write_all(b"srvr").ok()?;
                let mut answer = String::new();
                stream.read_to_string(&mut answer).ok()?;
                // Before it has read its data it says that it serves nobody.
                answer.contains("\nMode: ").then_some(())
            },
        );
    }
}

impl Drop for ZooKeeper {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// The shell kills it when its own standard input ends.
const UNTIL_STDIN_ENDS: &str = "java -Xmx256m -cp '/usr/share/java/*' \
    org.apache.zookeeper.server.quorum.QuorumPeerMain zoo.cfg </dev/null & \
    cat >/dev/null; kill -9 $!; wait";

fn spawn(folder: &Folder) -> Child {
    let log = File::options().create(true).append(true).open(folder.path().join("log")).unwrap();
    Command::new("sh")
        .args(["-c", UNTIL_STDIN_ENDS])
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}
