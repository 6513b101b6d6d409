//! A value that may change while the workers run, such as the schema.
//!
//! A writer publishes a new version. A worker compares one number per turn, and takes the version
//! only if the number has changed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The newest version of a value. Versions are numbered from 1.
#[derive(Debug)]
pub struct Published<T> {
    number: AtomicU64,
    newest: Mutex<(u64, Arc<T>)>,
}

impl<T> Published<T> {
    /// Publishes `first` as version 1.
    pub fn new(first: T) -> Self {
        Self { number: AtomicU64::new(1), newest: Mutex::new((1, Arc::new(first))) }
    }

    /// The newest version. Takes a lock; on the path of an event, use a [`Subscription`] instead.
    pub fn newest(&self) -> Arc<T> {
        self.lock().1.clone()
    }

    /// Publishes a new version and returns its number.
    pub fn publish(&self, value: T) -> u64 {
        let mut newest = self.lock();
        let number = newest.0 + 1;
        *newest = (number, Arc::new(value));
        self.number.store(number, Ordering::Release);
        number
    }

    fn lock(&self) -> MutexGuard<'_, (u64, Arc<T>)> {
        // The pair is replaced in one assignment, so a poisoned one is still consistent.
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One thread's view of a published value.
#[derive(Debug)]
pub struct Subscription<T> {
    published: Arc<Published<T>>,
    seen: u64,
}

impl<T> Subscription<T> {
    /// Creates a view that has taken no version yet.
    pub fn new(published: Arc<Published<T>>) -> Self {
        Self { published, seen: 0 }
    }

    /// The newest version; `None` if it was taken already.
    #[inline]
    pub fn changed(&mut self) -> Option<Arc<T>> {
        if self.published.number.load(Ordering::Acquire) == self.seen { None } else { Some(self.take()) }
    }

    #[cold]
    fn take(&mut self) -> Arc<T> {
        let (number, value) = self.published.lock().clone();
        self.seen = number;
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscriber_takes_each_newest_version_once() {
        let published = Arc::new(Published::new("one"));
        let mut subscription = Subscription::new(published.clone());
        assert_eq!(subscription.changed().as_deref(), Some(&"one"));
        assert_eq!(subscription.changed(), None);
        assert_eq!(published.publish("two"), 2);
        assert_eq!(published.publish("three"), 3);
        let third = subscription.changed().unwrap();
        assert_eq!((*third, subscription.changed()), ("three", None));
        published.publish("four");
        assert_eq!((*third, *published.newest()), ("three", "four"), "who works with a version keeps it");
    }
}
