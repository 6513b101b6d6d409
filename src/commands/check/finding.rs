//! The findings of `check`, each with its severity, a text and a remedy, and how they are printed.

use std::fmt;
use std::io::{self, Write};

use serde::Serialize;

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// No problem.
    Info,
    /// A problem with which `serve` would work.
    Warning,
    /// A problem with which `serve` would not work.
    Error,
}

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Topic {
    /// The settings themselves, and the files that they name.
    Configuration,
    /// A server of ClickHouse.
    ClickHouse,
    /// A table and its columns.
    Table,
    /// What a table promises.
    Guarantee,
    /// The settings of an INSERT.
    Settings,
    /// An address that is listened on.
    Address,
    /// The folder of the spool, and its disk.
    Spool,
    /// The limit of open files.
    Files,
    /// What may be in memory.
    Memory,
    /// The server that runs already.
    Server,
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Configuration => "config",
            Self::ClickHouse => "clickhouse",
            Self::Table => "table",
            Self::Guarantee => "guarantee",
            Self::Settings => "settings",
            Self::Address => "address",
            Self::Spool => "spool",
            Self::Files => "files",
            Self::Memory => "memory",
            Self::Server => "server",
        })
    }
}

/// One finding of `check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The severity.
    pub severity: Severity,
    /// What it is about.
    pub topic: Topic,
    /// The text; a finding that belongs to the one above begins with two spaces.
    #[serde(rename = "message")]
    pub text: String,
    /// The statement, flag or action that fixes the problem.
    #[serde(rename = "fix")]
    pub remedy: Option<String>,
}

/// All findings, in the order in which they are printed.
#[derive(Debug, Default)]
pub struct Findings {
    findings: Vec<Finding>,
}

/// Columns of a line in front of its text: severity and topic.
const MARGIN: usize = 20;

impl Findings {
    /// Adds a finding.
    pub fn add(&mut self, severity: Severity, topic: Topic, text: impl Into<String>) {
        self.add_with_remedy(severity, topic, text, None);
    }

    /// Adds a finding with its remedy, if there is one.
    pub fn add_with_remedy(
        &mut self,
        severity: Severity,
        topic: Topic,
        text: impl Into<String>,
        remedy: Option<String>,
    ) {
        self.findings.push(Finding { severity, topic, text: text.into(), remedy });
    }

    /// Adds the findings about one of several tables, and what they come to. `serve` works without a table
    /// that can't be filled, so that an error about it is a warning about `serve`.
    pub fn add_table(&mut self, label: &str, mut about: Self) {
        let verdict = if about.works() {
            (Severity::Info, format!("table {label}: would take events"))
        } else {
            let text =
                format!("table {label}: would NOT take events: they would be answered with 503 until this is fixed");
            (Severity::Warning, text)
        };
        for finding in &mut about.findings {
            finding.severity = finding.severity.min(Severity::Warning);
        }
        self.findings.append(&mut about.findings);
        self.add(verdict.0, Topic::Table, verdict.1);
    }

    /// True if `serve` would work.
    pub fn works(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity < Severity::Error)
    }

    /// All of them, without the spaces in front of those that belong to others.
    pub fn listed(&self) -> Vec<Finding> {
        let listed = |finding: &Finding| Finding { text: finding.text.trim_start().to_owned(), ..finding.clone() };
        self.findings.iter().map(listed).collect()
    }

    /// Prints every finding, and whether `serve` would work; in colours for a terminal.
    ///
    /// # Errors
    ///
    /// If `out` can't be written.
    pub fn print(&self, has_colours: bool, is_running: bool, out: &mut impl Write) -> io::Result<()> {
        let paint = |colour: &str, text: &str| match has_colours {
            true => format!("\u{1b}[{colour}m{text}\u{1b}[0m"),
            false => text.to_owned(),
        };
        let mut last = None;
        for Finding { severity, topic, text, remedy } in &self.findings {
            let (colour, word) = match severity {
                Severity::Info => ("32", "ok     "),
                Severity::Warning => ("33", "WARNING"),
                Severity::Error => ("31", "ERROR  "),
            };
            // What belongs to the line above has its topic.
            let is_same = last == Some(*topic) || text.starts_with(' ');
            let topic_shown = if is_same { String::new() } else { topic.to_string() };
            let word = if *severity == Severity::Info && is_same { "       ".to_owned() } else { paint(colour, word) };
            writeln!(out, "{word} {topic_shown:<11} {text}")?;
            if let Some(remedy) = remedy {
                let indent = MARGIN + text.len() - text.trim_start().len();
                writeln!(out, "{:indent$}  to fix it: {remedy}", "")?;
            }
            last = Some(*topic);
        }
        let warnings = self.findings.iter().filter(|finding| finding.severity == Severity::Warning).count();
        let verdict = match (self.works(), is_running) {
            (true, false) => paint("1;32", "serve would work"),
            (true, true) => paint("1;32", "a server runs on this configuration; after a restart, serve would work"),
            (false, _) => paint("1;31", "serve would NOT work"),
        };
        match warnings {
            0 => writeln!(out, "{verdict}"),
            1 => writeln!(out, "{verdict}; see the warning above"),
            _ => writeln!(out, "{verdict}; see the {warnings} warnings above"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(findings: &Findings, has_colours: bool) -> String {
        let mut out = Vec::new();
        findings.print(has_colours, false, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_error_decides_and_a_remedy_is_printed_below_its_finding() {
        let mut findings = Findings::default();
        findings.add(Severity::Info, Topic::Table, "engine: MergeTree");
        findings.add(Severity::Info, Topic::Table, "  replicas: 2");
        let remedy = Some("ALTER TABLE".into());
        findings.add_with_remedy(Severity::Warning, Topic::Guarantee, "  guarantee: at least once", remedy);
        let text = "ok      table       engine: MergeTree\n                      replicas: 2\n\
                    WARNING               guarantee: at least once\n                        to fix it: ALTER TABLE\n\
                    serve would work; see the warning above\n";
        assert_eq!(printed(&findings, false), text);
        assert!(printed(&findings, true).contains("\u{1b}[33mWARNING\u{1b}[0m"));
        findings.add(Severity::Error, Topic::Table, "no table");
        assert!(
            !findings.works() && printed(&findings, false).contains("ERROR   table       no table\nserve would NOT")
        );
    }

    #[test]
    fn each_of_several_tables_has_its_verdict_and_a_broken_one_does_not_decide() {
        let mut findings = Findings::default();
        let mut broken = Findings::default();
        broken.add(Severity::Error, Topic::Table, "no table");
        findings.add_table("hits", broken);
        findings.add_table("events", Findings::default());
        let has = |begin: &str| findings.listed().iter().any(|found| found.text.starts_with(begin));
        assert!(findings.works() && has("table events: would take events"));
        assert!(has("table hits: would NOT take events"));
    }
}
