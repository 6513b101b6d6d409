//! Builds the servers in `bench/peers`, for the processor and with the profile of this one.

use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A server: `program ADDRESS CLICKHOUSE_URL TABLE`.
pub struct Peer {
    /// Its name in the results, and its table's.
    pub name: &'static str,
    /// The built program.
    pub program: PathBuf,
}

/// Those that can be built here. One whose language is missing is skipped, and that is said.
pub fn peers() -> Result<Vec<Peer>, Box<dyn Error>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = here.join("bench/peers");
    let built = here.join("target/peers");
    let manifest = sources.join("Cargo.toml");

    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    // From here, so that the flags in `.cargo/config.toml` hold for them too.
    let arguments: [&OsStr; 7] = [
        "build".as_ref(),
        "--release".as_ref(),
        "--locked".as_ref(),
        "--manifest-path".as_ref(),
        manifest.as_ref(),
        "--target-dir".as_ref(),
        built.as_ref(),
    ];
    run(Command::new(cargo).args(arguments).current_dir(here))?;
    let mut peers: Vec<Peer> =
        ["card", "axum"].map(|name| Peer { name, program: built.join("release").join(name) }).into();

    if Command::new("go").arg("version").output().is_ok() {
        let program = built.join("go-peer");
        run(Command::new("go").args(["build", "-o"]).arg(&program).arg(".").current_dir(sources.join("go")))?;
        peers.push(Peer { name: "go", program });
    } else {
        println!("The peer in Go is skipped: there is no go here (Debian's package is golang-go).");
    }
    Ok(peers)
}

fn run(command: &mut Command) -> Result<(), Box<dyn Error>> {
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}
