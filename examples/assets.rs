//! Writes what a package has beside the binary: man pages, and completions for bash, zsh and fish.
//!
//! `cargo run --example assets -- DIR`; `make assets` writes them to `target/assets`.

use std::path::{Path, PathBuf};

use clap::CommandFactory;
use clap_complete::Shell;
use sluicegate::config::cli::Cli;

fn main() -> std::io::Result<()> {
    match std::env::args_os().nth(1).map(PathBuf::from) {
        Some(folder) => write(&folder),
        None => Err(std::io::Error::other("usage: assets DIR")),
    }
}

/// Writes all of it into a folder, which is made if it is missing.
pub fn write(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        // `sluicegate.bash`, `_sluicegate` and `sluicegate.fish`.
        clap_complete::generate_to(shell, &mut Cli::command(), "sluicegate", folder)?;
    }
    // `sluicegate.1`, and a page for each command, such as `sluicegate-spool-list.1`.
    clap_mangen::generate_to(Cli::command().disable_help_subcommand(true), folder)
}
