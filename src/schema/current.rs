//! The schema that new events are encoded with, while the table may change under a running server.
//!
//! Whoever sees a change publishes a new [`Version`]. A worker compares one number a turn, and
//! takes the version only when that has changed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Plan;

/// One state of the table, as it is encoded for.
#[derive(Debug)]
pub struct Version {
    /// Counts the versions of this process from 1.
    pub number: u64,
    /// How events become rows.
    pub plan: Arc<Plan>,
    /// What is written into every segment that holds such rows (invariant 3).
    pub frozen: Arc<[u8]>,
}

/// The newest version, for all workers.
#[derive(Debug)]
pub struct CurrentSchema {
    number: AtomicU64,
    newest: Mutex<Arc<Version>>,
}

impl CurrentSchema {
    /// Version 1.
    pub fn new(plan: Plan, frozen: Vec<u8>) -> Self {
        let first = Version { number: 1, plan: Arc::new(plan), frozen: frozen.into() };
        Self { number: AtomicU64::new(first.number), newest: Mutex::new(Arc::new(first)) }
    }

    /// The newest version's number.
    #[inline]
    pub fn number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    /// The newest version. Locks: only for who has seen a new [`CurrentSchema::number`].
    pub fn newest(&self) -> Arc<Version> {
        self.lock().clone()
    }

    /// Makes this the newest version; its number.
    pub fn publish(&self, plan: Plan, frozen: Vec<u8>) -> u64 {
        let mut newest = self.lock();
        let number = newest.number + 1;
        *newest = Arc::new(Version { number, plan: Arc::new(plan), frozen: frozen.into() });
        self.number.store(number, Ordering::Release);
        number
    }

    fn lock(&self) -> MutexGuard<'_, Arc<Version>> {
        // One pointer is replaced: nothing can be left half-changed.
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::ColumnDescription;
    use super::*;

    fn plan(name: &str) -> Plan {
        let column = ColumnDescription {
            name: name.to_owned(),
            type_name: "String".to_owned(),
            default_kind: String::new(),
            default_expression: String::new(),
        };
        Plan::compile(&[column], "UTC").unwrap()
    }

    #[test]
    fn the_number_and_the_version_change_together() {
        let schema = CurrentSchema::new(plan("a"), b"one".to_vec());
        let first = schema.newest();
        assert_eq!((schema.number(), first.number, &first.frozen[..]), (1, 1, &b"one"[..]));
        assert_eq!(schema.publish(plan("b"), b"two".to_vec()), 2);
        let second = schema.newest();
        assert_eq!((schema.number(), second.number, &second.frozen[..]), (2, 2, &b"two"[..]));
        assert_eq!(second.plan.columns()[0].name, "b");
        // Who still works with the first one keeps it.
        assert_eq!(first.plan.columns()[0].name, "a");
    }
}
