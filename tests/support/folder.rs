//! A folder that goes with the test, unless the test fails: then it is what there is to find out why.

use std::path::Path;
use std::thread;

/// A temporary folder, which stays when the test fails.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.disable_cleanup(true);
            eprintln!("kept, since the test has failed: {}", self.path().display());
        }
    }
}
