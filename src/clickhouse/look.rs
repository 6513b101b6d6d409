//! Wishes for a look at the table's columns. Many before one look are one.

use std::time::Duration;

use crossbeam::channel::{self, Receiver, Sender};

/// A bell that many may ring and one waits for.
pub struct LookWish {
    wish: Sender<()>,
    wished: Receiver<()>,
}

impl Default for LookWish {
    fn default() -> Self {
        let (wish, wished) = channel::bounded(1);
        Self { wish, wished }
    }
}

impl LookWish {
    /// Asks for a look; does not wait for it.
    pub fn wish(&self) {
        // Full: somebody has asked already.
        let _ = self.wish.try_send(());
    }

    /// Waits for a wish, and no longer than `longest`.
    pub(super) fn wait(&self, longest: Duration) {
        let _ = self.wished.recv_timeout(longest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn many_wishes_are_one_and_none_is_lost() {
        let look = LookWish::default();
        (0..5).for_each(|_| look.wish());
        let soon = Instant::now();
        look.wait(Duration::from_secs(3600));
        assert!(soon.elapsed() < Duration::from_secs(60));
        assert!(look.wished.try_recv().is_err());
    }
}
