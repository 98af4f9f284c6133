//! What a controller has asked for and not yet seen in its informers.

use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::time::Duration;
use tokio::time::Instant;

/// After this long an expectation no longer holds a controller back.
const TIMEOUT: Duration = Duration::from_secs(5 * 60);

struct Expected<T> {
    creations: usize,
    deletions: HashSet<T>,
    since: Instant,
}

/// Creations (counted) and deletions (by key) that a controller waits to see, per controlled object.
pub struct Expectations<T> {
    expected: Mutex<HashMap<T, Expected<T>>>,
}

impl<T> Default for Expectations<T> {
    fn default() -> Self {
        Self { expected: Mutex::new(HashMap::new()) }
    }
}

impl<T: Clone + Eq + Hash> Expectations<T> {
    /// Expects `count` creations for `key`; call before creating.
    pub fn expect_creations(&self, key: &T, count: usize) {
        self.expected
            .lock()
            .insert(key.clone(), Expected { creations: count, deletions: HashSet::new(), since: Instant::now() });
    }

    /// Expects deletions for `key`; call before deleting.
    pub fn expect_deletions(&self, key: &T, objects: impl IntoIterator<Item = T>) {
        let deletions = objects.into_iter().collect();
        self.expected.lock().insert(key.clone(), Expected { creations: 0, deletions, since: Instant::now() });
    }

    /// Expects both; call before acting.
    pub fn expect(&self, key: &T, creations: usize, deletions: impl IntoIterator<Item = T>) {
        let deletions = deletions.into_iter().collect();
        self.expected.lock().insert(key.clone(), Expected { creations, deletions, since: Instant::now() });
    }

    /// A creation was seen, or failed.
    pub fn creation_observed(&self, key: &T) {
        if let Some(expected) = self.expected.lock().get_mut(key) {
            expected.creations = expected.creations.saturating_sub(1);
        }
    }

    /// Creations that will not be tried any more.
    pub fn creations_skipped(&self, key: &T, count: usize) {
        if let Some(expected) = self.expected.lock().get_mut(key) {
            expected.creations = expected.creations.saturating_sub(count);
        }
    }

    /// A deletion was seen, or failed.
    pub fn deletion_observed(&self, key: &T, object: &T) {
        if let Some(expected) = self.expected.lock().get_mut(key) {
            expected.deletions.remove(object);
        }
    }

    /// Whether everything was seen (or the wait is over), so that the informer can be trusted.
    pub fn satisfied(&self, key: &T) -> bool {
        self.expected.lock().get(key).is_none_or(|expected| {
            (expected.creations == 0 && expected.deletions.is_empty()) || expected.since.elapsed() > TIMEOUT
        })
    }

    /// Forgets a controlled object that is gone.
    pub fn forget(&self, key: &T) {
        self.expected.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn hold_until_seen_or_timed_out() {
        let expectations = Expectations::default();
        assert!(expectations.satisfied(&"rs"));
        expectations.expect(&"rs", 2, ["p1"]);
        expectations.creation_observed(&"rs");
        expectations.creation_observed(&"rs");
        assert!(!expectations.satisfied(&"rs"));
        expectations.deletion_observed(&"rs", &"p1");
        assert!(expectations.satisfied(&"rs"));
        expectations.expect_creations(&"rs", 1);
        assert!(!expectations.satisfied(&"rs"));
        tokio::time::advance(TIMEOUT + Duration::from_secs(1)).await;
        assert!(expectations.satisfied(&"rs"));
    }
}
