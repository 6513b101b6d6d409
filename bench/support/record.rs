//! What a benchmark measured, in one form for all of them: JSON lines, the first a [`Run`], each
//! further one a [`Figure`] with its raw rounds.
//!
//! A benchmark notes its figures here beside the table that it prints. With `BENCH_RECORD=FOLDER`
//! they are written to `FOLDER/<bench>.jsonl`; `bench/report.rs` makes a table and pictures of it.

// Each benchmark is a crate of its own and uses its share of this.
#![allow(dead_code)]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

use serde::{Deserialize, Serialize};

/// The variable that names the folder, seen from where the benchmark is started.
const FOLDER: &str = "BENCH_RECORD";

/// What was run, when, on what.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Run {
    /// The benchmark's name.
    pub bench: String,
    /// RFC 3339, UTC.
    pub date: String,
    /// `git describe --always --dirty`.
    pub commit: String,
    /// The variables that it looks at, and how to call it.
    pub command: String,
    /// The processor, as the kernel calls it.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// The kernel's release.
    pub kernel: String,
    /// Load of the machine over the minute before: near 0 where nothing else ran.
    pub load: String,
}

/// One thing that was measured, round for round.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Figure {
    /// Whose figure it is: one line of a picture.
    pub series: String,
    /// What was measured: one picture.
    pub figure: String,
    /// Of each of `rounds`.
    pub unit: String,
    /// Where on a curve, if it is a point of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<At>,
    /// As measured, in their order.
    pub rounds: Vec<f64>,
}

/// A place on a curve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct At {
    /// What changes along it.
    pub along: String,
    /// How much of it there is here.
    pub x: f64,
}

impl Figure {
    /// The middle round.
    pub fn median(&self) -> f64 {
        let mut rounds = self.rounds.clone();
        rounds.sort_by(f64::total_cmp);
        rounds.get(rounds.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// The least of the rounds, and the most.
    pub fn spread(&self) -> (f64, f64) {
        self.rounds
            .iter()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), round| (least.min(*round), most.max(*round)))
    }

    /// Median, least and most in a few characters.
    pub fn summary(&self) -> String {
        let (least, most) = self.spread();
        match self.rounds.len() {
            1 => number(self.median()),
            _ => format!("{} ({}–{})", number(self.median()), number(least), number(most)),
        }
    }
}

/// Three digits at least, and no fraction where they say enough.
pub fn number(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 100.0 || size == 0.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

/// What one run has measured.
#[derive(Debug, Clone)]
pub struct Record {
    /// Which run.
    pub run: Run,
    /// In the order in which they were noted.
    pub figures: Vec<Figure>,
}

impl Record {
    /// Of the benchmark of this name, from now on.
    pub fn begin(bench: &str) -> Self {
        Self::begin_as(bench, bench)
    }

    /// Under another name than the benchmark's own, for one that was asked for something else.
    pub fn begin_as(name: &str, bench: &str) -> Self {
        Self { run: Run { bench: name.to_owned(), ..Run::of_this(bench) }, figures: Vec::new() }
    }

    /// Takes down a figure, and returns it for the table that is printed.
    pub fn note(&mut self, series: &str, figure: &str, unit: &str, rounds: impl IntoIterator<Item = f64>) -> &Figure {
        self.note_at(None, series, figure, unit, rounds)
    }

    /// Takes down a point of a curve: `x` of what changes `along` it.
    pub fn point(
        &mut self,
        (along, x): (&str, f64),
        series: &str,
        figure: &str,
        unit: &str,
        rounds: impl IntoIterator<Item = f64>,
    ) -> &Figure {
        self.note_at(Some(At { along: along.to_owned(), x }), series, figure, unit, rounds)
    }

    fn note_at(
        &mut self,
        at: Option<At>,
        series: &str,
        figure: &str,
        unit: &str,
        rounds: impl IntoIterator<Item = f64>,
    ) -> &Figure {
        let [series, figure, unit] = [series, figure, unit].map(str::to_owned);
        let last = self.figures.len();
        self.figures.push(Figure { series, figure, unit, at, rounds: rounds.into_iter().map(rounded).collect() });
        &self.figures[last]
    }

    /// Writes it, where a folder is named.
    pub fn save(&self) -> Result<(), Box<dyn Error>> {
        let Some(folder) = env::var_os(FOLDER).filter(|folder| !folder.is_empty()) else { return Ok(()) };
        let mut text = serde_json::to_string(&self.run)?;
        for figure in &self.figures {
            if !figure.rounds.iter().all(|round| round.is_finite()) {
                return Err(format!("{}, {}: a round measured nothing", figure.series, figure.figure).into());
            }
            text.push('\n');
            text.push_str(&serde_json::to_string(figure)?);
        }
        text.push('\n');
        fs::create_dir_all(&folder)?;
        let path = Path::new(&folder).join(format!("{}.jsonl", self.run.bench));
        fs::write(&path, text)?;
        println!("The raw figures are in {}.", path.display());
        Ok(())
    }
}

/// The records in a folder, in the order of their names.
pub fn read(folder: &Path) -> Result<Vec<Record>, Box<dyn Error>> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    paths.sort();
    let mut records = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path)?;
        let mut lines = text.lines();
        let parse = || -> Result<Record, serde_json::Error> {
            let run = serde_json::from_str(lines.next().unwrap_or_default())?;
            Ok(Record { run, figures: lines.map(serde_json::from_str).collect::<Result<_, _>>()? })
        };
        records.push(parse().map_err(|error| format!("{}: {error}", path.display()))?);
    }
    Ok(records)
}

impl Run {
    /// What it ran on, in a few words.
    pub fn machine(&self) -> String {
        format!("{}, {} cores, Linux {}", self.cpu, self.cores, self.kernel)
    }

    fn of_this(bench: &str) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let cpuinfo = read("/proc/cpuinfo");
        let cpu = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Self {
            bench: bench.to_owned(),
            date: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
            commit: commit().unwrap_or_else(|| "unknown".to_owned()),
            command: command(bench),
            cpu: cpu.map_or("unknown", |(_, name)| name).to_owned(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: read("/proc/sys/kernel/osrelease"),
            load: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
        }
    }
}

/// To six digits that count: more of them is noise.
fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let scale = 10_f64.powi(5 - value.abs().log10().floor() as i32);
    (value * scale).round() / scale
}

fn commit() -> Option<String> {
    let arguments = ["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty"];
    let output = Command::new("git").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// How to do it again.
fn command(bench: &str) -> String {
    let mut settings: Vec<String> = env::vars()
        .filter(|(name, _)| name.starts_with("BENCH_") && name != FOLDER)
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    settings.sort();
    let profile = if cfg!(debug_assertions) { " --profile dev" } else { "" };
    let features = if cfg!(feature = "engine-may") { " --features engine-may" } else { "" };
    settings.push(format!("cargo bench{profile}{features} --bench {bench}"));
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if !arguments.is_empty() {
        settings.push("--".to_owned());
        settings.extend(arguments);
    }
    settings.join(" ")
}
