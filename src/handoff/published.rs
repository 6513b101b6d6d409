//! A value that may change while the workers run, such as the write keys, and a list of such values,
//! such as the schemas of the tables.
//!
//! A writer publishes a new version. A worker compares one number per turn, and takes the version
//! only if the number has changed. The values of a list share one number that each publication raises, so
//! that a worker compares one number for all of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::batch::TableIndex;

/// The newest version of a value. Versions are numbered from 1.
#[derive(Debug)]
pub struct Published<T> {
    number: AtomicU64,
    newest: Mutex<(u64, Arc<T>)>,
    /// The publications of all values of its list.
    of_list: Arc<AtomicU64>,
}

impl<T> Published<T> {
    /// Publishes `first` as version 1.
    pub fn new(first: T) -> Self {
        Self::in_list(first, Arc::default())
    }

    fn in_list(first: T, of_list: Arc<AtomicU64>) -> Self {
        Self { number: AtomicU64::new(1), newest: Mutex::new((1, Arc::new(first))), of_list }
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
        // Behind the value's own number: who sees this one finds the new version.
        self.of_list.fetch_add(1, Ordering::Release);
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

/// Values that change each for itself, one for each table.
#[derive(Debug)]
pub struct PublishedList<T> {
    values: Box<[Arc<Published<T>>]>,
    publications: Arc<AtomicU64>,
}

impl<T> PublishedList<T> {
    /// Publishes the first version of each value.
    pub fn new(first: impl IntoIterator<Item = T>) -> Self {
        let publications = Arc::<AtomicU64>::default();
        let publish = |first| Arc::new(Published::in_list(first, publications.clone()));
        Self { values: first.into_iter().map(publish).collect(), publications }
    }

    /// The values, in the order of the tables.
    pub fn values(&self) -> &[Arc<Published<T>>] {
        &self.values
    }

    /// The value of a table.
    pub fn get(&self, table: TableIndex) -> Option<&Arc<Published<T>>> {
        self.values.get(table.get())
    }
}

/// One thread's view of a list.
#[derive(Debug)]
pub struct ListSubscription<T> {
    values: Box<[Subscription<T>]>,
    publications: Arc<AtomicU64>,
    /// Publications that were looked at; `None` before the first look.
    seen: Option<u64>,
}

impl<T> ListSubscription<T> {
    /// Creates a view that has taken no version yet.
    pub fn new(list: &PublishedList<T>) -> Self {
        let values = list.values.iter().cloned().map(Subscription::new).collect();
        Self { values, publications: list.publications.clone(), seen: None }
    }

    /// Passes each value that has changed to `take`, in its newest version; at first, all of them.
    #[inline]
    pub fn take_changed(&mut self, take: impl FnMut(TableIndex, Arc<T>)) {
        // Read before the values: what is published meanwhile is looked at again.
        let publications = self.publications.load(Ordering::Acquire);
        if self.seen != Some(publications) {
            self.seen = Some(publications);
            self.take_each(take);
        }
    }

    #[cold]
    fn take_each(&mut self, mut take: impl FnMut(TableIndex, Arc<T>)) {
        for (place, value) in (0..).zip(&mut self.values) {
            if let Some(newest) = value.changed() {
                take(TableIndex::new(place), newest);
            }
        }
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

    #[test]
    fn a_change_of_one_value_of_a_list_is_taken_once_and_the_others_are_left_alone() {
        let list = PublishedList::new(["a", "b", "c"]);
        let mut subscription = ListSubscription::new(&list);
        let taken = |subscription: &mut ListSubscription<&'static str>| {
            let mut taken = Vec::new();
            subscription.take_changed(|table, value| taken.push((table.get(), *value)));
            taken
        };
        assert_eq!(taken(&mut subscription), [(0, "a"), (1, "b"), (2, "c")]);
        assert_eq!(taken(&mut subscription), []);
        list.get(TableIndex::new(1)).unwrap().publish("d");
        assert_eq!(taken(&mut subscription), [(1, "d")]);
        assert_eq!(taken(&mut subscription), []);
        for value in list.values() {
            value.publish("e");
        }
        assert_eq!(taken(&mut subscription), [(0, "e"), (1, "e"), (2, "e")]);
        assert!(list.get(TableIndex::new(3)).is_none());
    }

    #[test]
    fn what_is_published_while_others_are_taken_is_taken_by_the_next_look() {
        let list = PublishedList::new([1, 2]);
        let mut subscription = ListSubscription::new(&list);
        subscription.take_changed(|table, _| {
            if table.get() == 1 {
                list.values()[0].publish(3);
            }
        });
        let mut taken = Vec::new();
        subscription.take_changed(|table, value| taken.push((table.get(), *value)));
        assert_eq!(taken, [(0, 3)]);
    }
}
