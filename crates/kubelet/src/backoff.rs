//! Doubling delays per key: 10 s up to 300 s, forgotten after twice the longest without failure.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::{Duration, SystemTime};

/// First delay.
pub const FIRST: Duration = Duration::from_secs(10);
/// Longest delay.
pub const LONGEST: Duration = Duration::from_secs(300);

#[derive(Clone, Copy)]
struct Entry {
    delay: Duration,
    updated: SystemTime,
}

/// Delays by key.
pub struct Backoff {
    entries: Mutex<HashMap<String, Entry>>,
    first: Duration,
    longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::up_to(LONGEST)
    }
}

impl Backoff {
    /// Delays up to a longest, from the first or that.
    pub fn up_to(longest: Duration) -> Self {
        Self { entries: Mutex::default(), first: FIRST.min(longest), longest }
    }

    fn expired(&self, entry: Entry, now: SystemTime) -> bool {
        // As long as upstream remembers, whatever the longest delay is.
        now.duration_since(entry.updated).unwrap_or_default() > self.longest.max(LONGEST) * 2
    }

    /// The delay in force after an event at `since`, with the time it ends, or `None` when it is over.
    pub fn in_force(&self, key: &str, since: SystemTime, now: SystemTime) -> Option<(Duration, SystemTime)> {
        let entry = *self.entries.lock().get(key)?;
        if self.expired(entry, now) {
            return None;
        }
        let end = since + entry.delay;
        (end > now).then_some((entry.delay, end))
    }

    /// As [`Self::in_force`], counted from the last failure.
    pub fn since_update(&self, key: &str, now: SystemTime) -> Option<(Duration, SystemTime)> {
        let since = self.entries.lock().get(key)?.updated;
        self.in_force(key, since, now)
    }

    /// Notes a failure: the next delay is twice the last.
    pub fn next(&self, key: &str, now: SystemTime) {
        let mut entries = self.entries.lock();
        let delay = match entries.get(key) {
            Some(entry) if !self.expired(*entry, now) => (entry.delay * 2).min(self.longest),
            _ => self.first,
        };
        entries.insert(key.to_owned(), Entry { delay, updated: now });
    }

    /// Forgets a key.
    pub fn reset(&self, key: &str) {
        self.entries.lock().remove(key);
    }

    /// Forgets all keys of a prefix.
    pub fn release(&self, prefix: &str) {
        self.entries.lock().retain(|key, _| !key.starts_with(prefix));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_end_and_are_forgotten() {
        let (backoff, t0) = (Backoff::default(), SystemTime::UNIX_EPOCH);
        let at = |s: u64| t0 + Duration::from_secs(s);
        assert!(backoff.in_force("a", at(0), at(0)).is_none(), "nothing failed yet");
        backoff.next("a", at(0));
        assert_eq!(backoff.in_force("a", at(0), at(5)).map(|(d, _)| d), Some(FIRST));
        assert!(backoff.in_force("a", at(0), at(10)).is_none());
        (0..9).for_each(|i| backoff.next("a", at(i)));
        assert_eq!(backoff.in_force("a", at(9), at(9)).map(|(d, _)| d), Some(LONGEST));
        assert!(backoff.in_force("a", at(700), at(700)).is_none(), "ten minutes without failure");
    }
}
