//! `sluicegate spool requeue`: sends held blocks again.

use std::io::Write;
use std::time::Duration;

use serde::Deserialize;

use super::running::RunningServer;
use crate::config::ConfigError;
use crate::config::cli::RequeueArgs;
use crate::spool::Spool;

/// The reply of the server.
#[derive(Default, Deserialize)]
struct Requeued {
    requeued: u64,
}

/// Sends the order to the running server through its admin address. If no server runs, `--force` is
/// noted in each block that ClickHouse may have, so that the next start sends it.
///
/// # Errors
///
/// If the server refuses, no block matches, or the spool can't be opened.
pub fn run(arguments: &RequeueArgs, out: &mut impl Write) -> Result<(), Box<dyn std::error::Error>> {
    let query = [
        arguments.block.map(|number| format!("block={number}")),
        arguments.force.then(|| "force=1".to_owned()),
        arguments.convert.then(|| "convert=1".to_owned()),
    ];
    let labels = arguments.settings.only.iter().map(|label| format!("table={label}"));
    let query = query.into_iter().flatten().chain(labels).collect::<Vec<_>>().join("&");
    let server = RunningServer::new(&arguments.settings, Duration::from_secs(10))?;
    let address = server.address();
    match server.post(&format!("/spool/requeue?{query}")).send() {
        Ok(response) => {
            let succeeded = response.status() == 200;
            let text = response.text()?;
            if !succeeded {
                return Err(ConfigError(format!("the server at {address} answered: {text}")).into());
            }
            writeln!(out, "the server at {address} answered: {text}")?;
            let Requeued { requeued } = sonic_rs::from_str(&text).unwrap_or_default();
            match arguments.block {
                Some(number) if requeued == 0 => Err(ConfigError(format!(
                    "block {number} does not wait there; `sluicegate spool list` shows those that do"
                ))
                .into()),
                _ => Ok(()),
            }
        }
        Err(error) if error.is_connect() => offline(arguments, &address.to_string(), out),
        Err(error) => Err(ConfigError(format!("the server at {address} does not answer: {error}")).into()),
    }
}

fn offline(arguments: &RequeueArgs, address: &str, out: &mut impl Write) -> Result<(), Box<dyn std::error::Error>> {
    if !arguments.force {
        let sentence = format!(
            "no server answers at {address}. To one that runs with other settings the command needs the same --config, or \
             --admin-listen. If none runs, the next start retries the blocks anyway, and --convert waits for one that runs"
        );
        return Err(ConfigError(sentence).into());
    }
    let (_spool, recovered) = Spool::open(arguments.settings.spool(&arguments.settings.tables()))?;
    let mut count = 0;
    for mut block in recovered.blocks {
        let only = &arguments.settings.only;
        let meant = arguments.block.is_none_or(|number| number == block.number())
            && (only.is_empty() || only.iter().any(|only| only == block.label()));
        if meant && block.open_attempt().is_some() {
            block.force()?;
            count += 1;
        }
    }
    writeln!(
        out,
        "no server answers at {address}; the next start sends {count} blocks again that ClickHouse may have"
    )?;
    Ok(())
}
