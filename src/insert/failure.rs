//! Why an attempt of a segment did not prove it.

use std::io;

use super::outcome::{Class, classify};
use crate::clickhouse::client::{ClickHouse, ClientError};
use crate::clickhouse::name::TableName;

/// A failed attempt: what it calls for, and why.
pub(super) struct Failure {
    pub(super) class: Class,
    /// ClickHouse has certainly stored nothing of it.
    pub(super) answered: bool,
    pub(super) reason: String,
    /// What ClickHouse said, if it was asked.
    pub(super) error: Option<ClientError>,
}

impl Failure {
    /// Needs operator action.
    pub(super) fn hold(reason: impl Into<String>) -> Self {
        Self { class: Class::Hold, answered: true, reason: reason.into(), error: None }
    }

    pub(super) fn on_disk(error: io::Error) -> Self {
        let damage = (error.kind() == io::ErrorKind::InvalidData).then(|| ClientError::Damaged(error.to_string()));
        Self { error: damage, ..Self::hold(format!("the segment's file: {error}")) }
    }

    /// A question about a table that has to be answered before anything is sent, or believed.
    pub(super) fn of_question(table: &TableName, server: &ClickHouse, error: ClientError, attempts: u32) -> Self {
        let class = classify(&error, attempts).class;
        Self {
            class: if class == Class::Cut { Class::Hold } else { class },
            answered: true,
            reason: format!("{table} at {}: {}", server.url(), describe(&error)),
            error: Some(error),
        }
    }

    /// The segment could not be read as it was sealed.
    pub(super) fn is_damage(&self) -> bool {
        matches!(self.error, Some(ClientError::Damaged(_)))
    }

    /// ClickHouse knows the token and has not the rows.
    pub(super) fn is_absence(&self) -> bool {
        matches!(self.error, Some(ClientError::Absent(_)))
    }
}

/// ClickHouse's reason, cut: an error's text may quote values of the rows.
pub(super) fn describe(error: &ClientError) -> String {
    const CHARACTERS_MAX: usize = 400;
    error.to_string().chars().take(CHARACTERS_MAX).collect()
}
