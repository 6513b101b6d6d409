//! The findings of `check`, each with its severity, a text and a remedy.

use std::io::{self, Write};

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// No problem.
    Info,
    /// A problem with which `serve` would work.
    Warning,
    /// A problem with which `serve` would not work.
    Error,
}

/// One finding of `check`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The severity.
    pub severity: Severity,
    /// The text; a finding that belongs to the one above begins with two spaces.
    pub text: String,
    /// The statement, flag or action that fixes the problem.
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

    /// Adds a finding with its remedy, if there is one.
    pub fn add_with_remedy(&mut self, severity: Severity, text: impl Into<String>, remedy: Option<String>) {
        self.findings.push(Finding { severity, text: text.into(), remedy });
    }

    /// True if there is this finding already.
    pub fn has(&self, text: &str) -> bool {
        self.findings.iter().any(|finding| finding.text == text)
    }

    /// Adds the findings about one of several tables, and what they come to. `serve` works without a table
    /// that can't be filled, so that an error about it is a warning about `serve`.
    pub fn add_table(&mut self, label: &str, mut about: Self) {
        let verdict = if about.works() {
            Finding { severity: Severity::Info, text: format!("table {label}: would take events"), remedy: None }
        } else {
            let text =
                format!("table {label}: would NOT take events: they would be answered with 503 until this is fixed");
            Finding { severity: Severity::Warning, text, remedy: None }
        };
        for finding in &mut about.findings {
            finding.severity = finding.severity.min(Severity::Warning);
        }
        self.findings.append(&mut about.findings);
        self.findings.push(verdict);
    }

    /// True if `serve` would work.
    pub fn works(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity < Severity::Error)
    }

    /// Prints every finding, and whether `serve` would work.
    ///
    /// # Errors
    ///
    /// If `out` can't be written.
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
    fn an_error_decides_and_a_remedy_is_printed_below_its_finding() {
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

    #[test]
    fn each_of_several_tables_has_its_verdict_and_a_broken_one_does_not_decide() {
        let mut report = Report::default();
        let mut broken = Report::default();
        broken.add(Severity::Error, "no table");
        report.add_table("hits", broken);
        report.add_table("events", Report::default());
        assert!(report.works() && report.has("table events: would take events"));
        assert!(report.findings.iter().any(|found| found.text.starts_with("table hits: would NOT take events")));
    }
}
