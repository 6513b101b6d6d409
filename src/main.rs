//! The executable: parses the arguments, runs the command, and returns its exit code.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use sluicegate::clickhouse::embedded::{self, EmbeddedOptions};
use sluicegate::commands::{check, live, quarantine, requeue, schema, send, spool, suggest};
use sluicegate::config::cli::{self, ClickHouseArgs, Command, QuarantineCommand, SpoolCommand};
use sluicegate::config::environment;
use sluicegate::server::{self, allocator, cpu, drain, log};

/// The exit status of arguments that can't be understood, as clap has it.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    if let Err(sentence) = cpu::check() {
        eprintln!("sluicegate: {sentence}");
        return ExitCode::FAILURE;
    }
    allocator::settle();
    let code = run().unwrap_or_else(|error| {
        log::say_last(&format!("sluicegate: {error}"));
        ExitCode::FAILURE
    });
    log::flush();
    code
}

fn run() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let command = match cli::parse() {
        Ok(cli) => cli.command,
        Err(error) => {
            log::say_last(&format!("sluicegate: {error}"));
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    match command {
        Command::Serve(arguments) if arguments.print_config => {
            std::io::stdout().write_all(arguments.settings.to_toml().as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Serve(arguments) => {
            log::start(&arguments.settings);
            warn_of_variables();
            Ok(server::run(&arguments.settings)?)
        }
        Command::Check(arguments) if arguments.live => {
            live::run(&arguments.settings)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Check(arguments) => {
            let form = check::Form::new(arguments.json, std::io::stdout().is_terminal());
            let works = check::run(&arguments.settings, form, &mut std::io::stdout().lock())?;
            Ok(if works { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Schema(arguments) => {
            let (settings, mut out) = (&arguments.settings, std::io::stdout().lock());
            if arguments.suggest {
                suggest::run(settings, arguments.json, &mut out)?
            } else {
                schema::run(settings, arguments.json, &mut out)?
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Drain(arguments) => {
            log::start(&arguments.settings);
            warn_of_variables();
            drain::run(&arguments.settings)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Send(arguments) => {
            let sent = send::run(&arguments, &mut std::io::stdout());
            let outcome = sent.unwrap_or_else(|error| {
                log::say_last(&format!("sluicegate: {error}"));
                send::Outcome::NotSent
            });
            Ok(ExitCode::from(outcome.code()))
        }
        Command::Spool(SpoolCommand::List(arguments)) => {
            spool::list(&arguments.settings, arguments.json, &mut std::io::stdout().lock())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Spool(SpoolCommand::Verify(arguments)) => {
            let whole = spool::verify(&arguments.settings, arguments.json, &mut std::io::stdout().lock())?;
            Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Spool(SpoolCommand::Requeue(arguments)) => {
            requeue::run(&arguments, &mut std::io::stdout().lock())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Quarantine(QuarantineCommand::List(arguments)) => {
            quarantine::list(&arguments, &mut std::io::stdout().lock())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Quarantine(QuarantineCommand::Replay(arguments)) => {
            quarantine::replay(&arguments, &mut std::io::stdout().lock())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Clickhouse(arguments) => {
            let ClickHouseArgs { path, host, http_port } = arguments;
            embedded::run_in_foreground(&EmbeddedOptions { path, host, http_port })?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn warn_of_variables() {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for warning in environment::warnings(names) {
        tracing::warn!("{warning}");
    }
}
