//! The failure of a step for a block.

use std::io;
use std::time::Duration;

use super::outcome::{Class, calls_for_refresh, classify};
use super::step::Step;
use crate::clickhouse::client::{ClickHouse, ClientError};
use crate::clickhouse::name::TableName;
use crate::clickhouse::settings::InsertFormat;
use crate::spool::{Cause, Orders};

/// Number of attempts after which the pauses grow beyond those of [`Class::delay`].
const FAST_ATTEMPTS: u32 = 8;

/// The longest pause after an answer of ClickHouse.
const ANSWERED_LONGEST: Duration = Duration::from_secs(30);

/// Codes of what no INSERT of this user into the table passes: syntax and settings, rights, passwords.
const REFUSES_ALL: [u32; 8] = [62, 115, 164, 192, 193, 194, 497, 516];

pub(super) const NO_ORDERS: Orders = Orders { force: false, convert: false };

/// The order of `spool requeue --force`.
pub(super) const FORCE: Orders = Orders { force: true, convert: false };

/// The order of `spool requeue --convert`.
pub(super) const CONVERT: Orders = Orders { force: false, convert: true };

/// A failed attempt: what it calls for, and why.
pub(super) struct Failure {
    pub(super) class: Class,
    /// ClickHouse has certainly stored nothing of the attempt.
    pub(super) answered: bool,
    /// ClickHouse may have stored the token of the attempt without its rows.
    pub(super) suspicious: bool,
    pub(super) reason: String,
    /// What an operator can order where the block is held for it.
    pub(super) remedy: Orders,
    /// The error of the client, if the step failed there.
    pub(super) error: Option<ClientError>,
}

impl Failure {
    /// Creates a failure that needs operator action.
    pub(super) fn hold(reason: impl Into<String>) -> Self {
        Self {
            class: Class::Hold,
            answered: true,
            suspicious: false,
            reason: reason.into(),
            remedy: NO_ORDERS,
            error: None,
        }
    }

    /// The same failure of a block that an operator can send nevertheless.
    pub(super) fn helped_by(self, remedy: Orders) -> Self {
        Self { remedy, ..self }
    }

    /// Creates the failure of a block that can't be sent as it was sealed.
    pub(super) fn damaged(reason: &str) -> Self {
        Self { error: Some(ClientError::Damaged(reason.to_owned())), ..Self::hold(reason) }
    }

    /// Creates the failure of a temporary condition before anything was sent.
    pub(super) fn passing(reason: impl Into<String>) -> Self {
        Self {
            class: Class::Retry,
            answered: true,
            suspicious: false,
            reason: reason.into(),
            remedy: NO_ORDERS,
            error: None,
        }
    }

    pub(super) fn on_disk(error: io::Error) -> Self {
        let damage = (error.kind() == io::ErrorKind::InvalidData).then(|| ClientError::Damaged(error.to_string()));
        Self { error: damage, ..Self::hold(format!("the block's file: {error}")) }
    }

    /// Creates the failure of a write to the block's file before anything was sent. It is retried,
    /// because the error may pass, unless the block is damaged.
    pub(super) fn before_sending(error: io::Error) -> Self {
        let failure = Self::on_disk(error);
        if failure.is_damage() { failure } else { Self { class: Class::Retry, ..failure } }
    }

    /// Creates the failure of a query about a table that must succeed before an INSERT may be sent,
    /// or before its success counts.
    pub(super) fn of_question(table: &TableName, server: &ClickHouse, error: ClientError, attempts: u32) -> Self {
        let class = classify(&error, attempts, InsertFormat::Rowbinary).class;
        Self {
            class: if matches!(class, Class::Cut | Class::Split) { Class::Hold } else { class },
            answered: true,
            suspicious: false,
            reason: format!("{table} at {}: {}", server.url(), describe(&error)),
            remedy: NO_ORDERS,
            error: Some(error),
        }
    }

    /// The reason, with what to do where ClickHouse itself refuses and no order helps.
    pub(super) fn with_advice(&self) -> String {
        match &self.error {
            Some(ClientError::Refused { code: Some(_), .. }) if self.remedy == NO_ORDERS => {
                format!(
                    "{}; once that is fixed in ClickHouse, or in the configuration, the block goes in by itself",
                    self.reason
                )
            }
            _ => self.reason.clone(),
        }
    }

    /// The pause before the next attempt, after `attempts` attempts. It grows further if ClickHouse itself
    /// refuses, because that may last.
    pub(super) fn delay(&self, attempts: u32) -> Duration {
        let delay = self.class.delay(attempts);
        let is_answer = matches!(self.error, Some(ClientError::Refused { code: Some(_), .. }));
        if self.class == Class::Retry && is_answer && attempts > FAST_ATTEMPTS {
            return delay.saturating_mul(attempts - FAST_ATTEMPTS).min(ANSWERED_LONGEST);
        }
        delay
    }

    /// Whose reason it is that a block waits which this failure of `step` puts back. By codes alone: a
    /// message may quote what a client wrote.
    pub(super) fn cause(&self, step: Step) -> Cause {
        let is_table = match &self.error {
            // The quarantine table's troubles are none of the table's.
            _ if matches!(step, Step::Send(sent) if sent.is_for_quarantine()) => false,
            Some(
                ClientError::NoConnection(_)
                | ClientError::NoAnswer(_)
                | ClientError::Unproven(_)
                | ClientError::Refused { code: None, .. },
            ) => true,
            Some(error @ ClientError::Refused { code: Some(code), .. }) => {
                self.class == Class::Retry || calls_for_refresh(error) || REFUSES_ALL.contains(code)
            }
            Some(ClientError::Damaged(_) | ClientError::Absent(_)) | None => false,
        };
        if is_table { Cause::Table } else { Cause::Own }
    }

    /// True if the block is damaged.
    pub(super) fn is_damage(&self) -> bool {
        matches!(self.error, Some(ClientError::Damaged(_)))
    }

    /// True if ClickHouse knows the token but does not have the rows.
    pub(super) fn is_absence(&self) -> bool {
        matches!(self.error, Some(ClientError::Absent(_)))
    }
}

/// The text of an error, truncated because ClickHouse may quote values of the rows in it.
pub(super) fn describe(error: &ClientError) -> String {
    const CHARACTERS_MAX: usize = 400;
    error.to_string().chars().take(CHARACTERS_MAX).collect()
}
