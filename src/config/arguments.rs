//! The commands of `sluicegate` and their arguments.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::Settings;
use super::send::SendArgs;
use crate::batch::BlockNumber;

/// Takes analytics events over HTTP and inserts every one into ClickHouse exactly once.
#[derive(Debug, Parser)]
#[command(name = "sluicegate", version, arg_required_else_help = true)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// A command of `sluicegate`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server
    Serve(Box<ServeArgs>),
    /// Connect as serve would, and report whether serve would work and which guarantee the table gives
    Check(Box<CheckArgs>),
    /// Print the CREATE statements that serve would run
    Schema(Box<SchemaArgs>),
    /// Insert all events of a spool without opening a port
    Drain(Box<TablesArgs>),
    /// Send files or a pipe of events to a running server
    ///
    /// Each request has an Idempotency-Key that is made of what is in the file up to its end: the same file, sent again
    /// within 24 hours, is not stored again, and an interrupted run is repeated with the same command. Rejected lines
    /// are printed on standard error as FILE:LINE: CODE: MESSAGE. The exit status is 0 if all lines were accepted, 1
    /// if some were rejected, and 2 if not everything could be sent.
    Send(Box<SendArgs>),
    /// List, verify or requeue the blocks of a spool
    #[command(subcommand)]
    Spool(SpoolCommand),
    /// List the rejected lines, or send them again
    #[command(subcommand)]
    Quarantine(QuarantineCommand),
    /// Run the embedded ClickHouse alone, in the foreground
    Clickhouse(ClickHouseArgs),
}

/// Arguments of `sluicegate serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Print the configuration in force as a TOML file, without secrets, and serve nothing
    #[arg(long)]
    pub print_config: bool,
    /// The settings.
    #[command(flatten)]
    pub settings: Settings,
}

/// A command of `sluicegate spool`.
#[derive(Debug, Subcommand)]
pub enum SpoolCommand {
    /// Print a line for each block
    List(Box<ReportArgs>),
    /// Read every sealed block and report damage
    Verify(Box<ReportArgs>),
    /// Send held blocks again: now through the running server, else at the next start
    Requeue(Box<RequeueArgs>),
}

/// Arguments of a command about the tables.
#[derive(Debug, Args)]
pub struct TablesArgs {
    /// The tables.
    #[command(flatten)]
    pub only: OnlyArgs,
    /// The settings.
    #[command(flatten)]
    pub settings: Settings,
}

/// Arguments of `sluicegate check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Only ask the running server of these settings whether it lives (/livez), as a health check does
    #[arg(long, conflicts_with = "json")]
    pub live: bool,
    /// Print one JSON object, for programs
    #[arg(long)]
    pub json: bool,
    /// The tables.
    #[command(flatten)]
    pub only: OnlyArgs,
    /// The settings.
    #[command(flatten)]
    pub settings: Settings,
}

/// Arguments of a command that lists what a spool has.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Print one JSON object, for programs
    #[arg(long)]
    pub json: bool,
    /// The tables.
    #[command(flatten)]
    pub only: OnlyArgs,
    /// The settings.
    #[command(flatten)]
    pub settings: Settings,
}

/// The tables that a command is about.
#[derive(Debug, Args)]
pub struct OnlyArgs {
    /// Only the table with this label, of those that have a [table.NAME] section in the file: its name, or
    /// database.table where two databases share it; repeat it for more [default: all tables]
    #[arg(long = "only", id = ONLY, value_name = "LABEL", value_delimiter = ',')]
    labels: Vec<String>,
}

/// The identifier of `--only`.
pub(super) const ONLY: &str = "only";

/// Arguments of `sluicegate schema`.
#[derive(Debug, Args)]
pub struct SchemaArgs {
    /// Print the ALTER TABLE … ADD COLUMN for the fields that the running server has counted because no
    /// column takes them
    #[arg(long)]
    pub suggest: bool,
    /// Print one JSON object, for programs
    #[arg(long)]
    pub json: bool,
    /// The tables.
    #[command(flatten)]
    pub only: OnlyArgs,
    /// The settings.
    #[command(flatten)]
    pub settings: Settings,
}

/// Arguments of `sluicegate spool requeue`.
#[derive(Debug, Args)]
pub struct RequeueArgs {
    /// Only this block, by its number in `spool list`
    #[arg(long, alias = "segment", value_name = "N")]
    pub block: Option<BlockNumber>,
    /// Also send blocks that ClickHouse may have and whose tokens it may have forgotten; this may
    /// double their rows
    #[arg(long)]
    pub force: bool,
    /// Let ClickHouse convert the block's columns to those that the table has now
    #[arg(long)]
    pub convert: bool,
    /// The tables.
    #[command(flatten)]
    pub only: OnlyArgs,
    /// The settings, which name the spool and the server.
    #[command(flatten)]
    pub settings: Settings,
}

/// A command of `sluicegate quarantine`.
#[derive(Debug, Subcommand)]
pub enum QuarantineCommand {
    /// Print the number of lines for each reason, and the newest lines
    List(Box<ListArgs>),
    /// Send the lines to the running server again, and delete those that it has acknowledged
    ///
    /// Each line is stored with the time and the client's address that the quarantine has of it. A line that is
    /// rejected again stays, and so does one that was truncated when it was stored.
    Replay(Box<ReplayArgs>),
}

/// Arguments of `sluicegate quarantine list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only lines rejected since this time, such as 2026-05-01 or 2026-05-01T12:00:00Z (UTC)
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Number of the newest lines to show
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub limit: u32,
    /// Print one JSON object, for programs
    #[arg(long)]
    pub json: bool,
    /// The tables.
    #[command(flatten)]
    pub only: OnlyArgs,
    /// The settings, which name ClickHouse and the table.
    #[command(flatten)]
    pub settings: Settings,
}

/// Arguments of `sluicegate quarantine replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// Only lines rejected since this time, such as 2026-05-01 or 2026-05-01T12:00:00Z (UTC)
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Report what the server would answer; store nothing and delete nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Go on although an earlier replay was interrupted, and another node or a changed table leaves
    /// open what it has stored: that may be stored twice
    #[arg(long)]
    pub force: bool,
    /// The tables.
    #[command(flatten)]
    pub only: OnlyArgs,
    /// The settings, which name ClickHouse, the table and the server.
    #[command(flatten)]
    pub settings: Settings,
}

impl Command {
    /// The settings of the command; `None` if it has none.
    pub fn settings_mut(&mut self) -> Option<&mut Settings> {
        match self {
            Self::Serve(arguments) => Some(&mut arguments.settings),
            Self::Check(arguments) => Some(&mut arguments.settings),
            Self::Drain(arguments) => Some(&mut arguments.settings),
            Self::Schema(arguments) => Some(&mut arguments.settings),
            Self::Spool(SpoolCommand::List(arguments) | SpoolCommand::Verify(arguments)) => {
                Some(&mut arguments.settings)
            }
            Self::Spool(SpoolCommand::Requeue(arguments)) => Some(&mut arguments.settings),
            Self::Quarantine(QuarantineCommand::List(arguments)) => Some(&mut arguments.settings),
            Self::Quarantine(QuarantineCommand::Replay(arguments)) => Some(&mut arguments.settings),
            Self::Send(_) | Self::Clickhouse(_) => None,
        }
    }
}

/// Arguments of `sluicegate clickhouse`.
#[derive(Debug, Args)]
pub struct ClickHouseArgs {
    /// Folder of the tables; created if it is missing
    #[arg(long, value_name = "DIR")]
    pub path: PathBuf,
    /// Port of the HTTP interface
    #[arg(long, value_name = "N", default_value_t = 8123)]
    pub http_port: u16,
    /// Address of the HTTP interface
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub host: String,
}
