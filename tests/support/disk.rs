//! A real, small disk: a tmpfs in a mount namespace of its own, so that no rights are needed.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Holds the namespace; goes with its value.
pub struct SmallDisk {
    holder: Child,
    folder: tempfile::TempDir,
}

impl SmallDisk {
    /// A disk of so many bytes.
    pub fn new(bytes: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script = format!("mount -t tmpfs -o size={bytes},nr_inodes=400 tmpfs \"$0\" && echo ready && exec cat");
        let mut holder = Command::new("unshare")
            .args(["--map-root-user", "--mount", "sh", "-c", &script])
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("`unshare` is needed (package util-linux)");
        let mut said = [0; 5];
        let ready = holder.stdout.take().unwrap().read_exact(&mut said);
        assert!(ready.is_ok(), "a small disk can't be made: this user may not make namespaces");
        Self { holder, folder }
    }

    /// Where it is, for programs that run on it.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A command that sees it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--preserve-credentials", "--user", "--mount", "--target"]);
        command.arg(self.holder.id().to_string()).arg("--").arg(program);
        command
    }

    /// Writes until nothing more fits.
    pub fn fill(&self) {
        use std::io::Write;

        let mut ballast = fs::File::create(self.ballast()).unwrap();
        while ballast.write_all(&[1; 4096]).is_ok() {}
    }

    /// Makes the room again that [`SmallDisk::fill`] took.
    pub fn free(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    /// Makes empty files until there is none to be made.
    pub fn use_up_inodes(&self) {
        let folder = self.seen_from_outside().join("inodes");
        fs::create_dir(&folder).unwrap();
        assert!((0..1_000_000).any(|name| fs::File::create(folder.join(name.to_string())).is_err()));
    }

    /// Gives back what [`SmallDisk::use_up_inodes`] took.
    pub fn free_inodes(&self) {
        fs::remove_dir_all(self.seen_from_outside().join("inodes")).unwrap();
    }

    /// Bytes that may still be written to it.
    pub fn free_bytes(&self) -> u64 {
        let disk = rustix::fs::statvfs(self.seen_from_outside()).unwrap();
        disk.f_bavail * disk.f_frsize
    }

    /// Its folder seen from outside of the namespace.
    pub fn seen_from_outside(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(self.path().strip_prefix("/").unwrap())
    }

    fn ballast(&self) -> PathBuf {
        self.seen_from_outside().join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}
