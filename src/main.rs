//! The executable: parses the arguments, runs the command, and returns its exit code.

use std::io::IsTerminal;
use std::process::ExitCode;

use sluicegate::clickhouse::embedded::{self, EmbeddedOptions};
use sluicegate::commands::{check, quarantine, requeue, schema, spool};
use sluicegate::config::cli::{self, ClickHouseArgs, Command, QuarantineCommand, SpoolCommand};
use sluicegate::config::{LogFormat, LogLevel, Settings};
use sluicegate::server::{self, cpu, drain};

fn main() -> ExitCode {
    if let Err(sentence) = cpu::check() {
        eprintln!("sluicegate: {sentence}");
        return ExitCode::FAILURE;
    }
    run().unwrap_or_else(|error| {
        eprintln!("sluicegate: {error}");
        ExitCode::FAILURE
    })
}

fn run() -> Result<ExitCode, Box<dyn std::error::Error>> {
    match cli::parse()?.command {
        Command::Serve(settings) => {
            start_log(&settings);
            Ok(server::run(&settings)?)
        }
        Command::Check(settings) => {
            let works = check::run(&settings, &mut std::io::stdout().lock())?;
            Ok(if works { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Schema(settings) => {
            schema::run(&settings, &mut std::io::stdout().lock())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Drain(settings) => {
            start_log(&settings);
            drain::run(&settings)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Spool(SpoolCommand::List(settings)) => {
            spool::list(&settings, &mut std::io::stdout().lock())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Spool(SpoolCommand::Verify(settings)) => {
            let whole = spool::verify(&settings, &mut std::io::stdout().lock())?;
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

fn start_log(settings: &Settings) {
    let terminal = std::io::stderr().is_terminal();
    let format = settings.log_format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json });
    let level = match settings.log_level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Trace => tracing::Level::TRACE,
    };
    // A failed write to standard error, for instance to a closed pipe, must not end the process, so
    // errors of the logger are ignored.
    let log = tracing_subscriber::fmt().with_max_level(level).log_internal_errors(false).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.with_ansi(terminal).with_target(false).init(),
        LogFormat::Json => log.json().flatten_event(true).with_target(false).init(),
    }
}
