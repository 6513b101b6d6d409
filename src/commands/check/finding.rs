//! What `check` finds, as data: how severe it is, a text, and what helps.

use std::io::{self, Write};

/// How severe a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be, or merely so.
    Info,
    /// Worth a look: `serve` would work.
    Warning,
    /// `serve` would not work.
    Error,
}

/// One thing that `check` has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How severe it is.
    pub severity: Severity,
    /// What it is; lines that belong to another one begin with two spaces.
    pub text: String,
    /// The statement, flag or action that helps.
    pub remedy: Option<String>,
}

/// All findings, in the order in which they are printed.
#[derive(Debug, Default)]
pub struct Report {
    findings: Vec<Finding>,
}

impl Report {
    /// Adds a finding.
    pub fn add(&mut self, severity: Severity, text: impl Into<String>) {
        self.findings.push(Finding { severity, text: text.into(), remedy: None });
    }

    /// Adds a finding that something helps against.
    pub fn add_with_remedy(&mut self, severity: Severity, text: impl Into<String>, remedy: Option<String>) {
        self.findings.push(Finding { severity, text: text.into(), remedy });
    }

    /// True when `serve` would work.
    pub fn works(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity < Severity::Error)
    }

    /// Prints every finding, and what it comes to. The only place that prints them.
    ///
    /// # Errors
    ///
    /// Those of writing to `out`.
    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        for Finding { text, remedy, .. } in &self.findings {
            writeln!(out, "{text}")?;
            if let Some(remedy) = remedy {
                let indent = " ".repeat(text.len() - text.trim_start().len());
                writeln!(out, "{indent}  to fix it: {remedy}")?;
            }
        }
        writeln!(out, "{}", if self.works() { "serve would work" } else { "serve would NOT work" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_decides_and_a_remedy_stands_below_its_finding() {
        let mut report = Report::default();
        report.add(Severity::Info, "engine: MergeTree");
        report.add_with_remedy(Severity::Warning, "  guarantee: at least once", Some("ALTER TABLE".into()));
        let printed = |report: &Report| {
            let mut out = Vec::new();
            report.print(&mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let text = "engine: MergeTree\n  guarantee: at least once\n    to fix it: ALTER TABLE\nserve would work\n";
        assert_eq!(printed(&report), text);
        report.add(Severity::Error, "no table");
        assert!(!report.works() && printed(&report).ends_with("no table\nserve would NOT work\n"));
    }
}
