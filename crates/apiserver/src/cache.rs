//! A small cache of answers that are good for some time.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Answers by key, each until its time is over; bounded in number.
pub struct TimedCache<T> {
    entries: Mutex<HashMap<String, (Instant, T)>>,
    most: usize,
}

impl<T: Clone> TimedCache<T> {
    /// An empty cache of at most so many answers.
    pub fn new(most: usize) -> Self {
        Self { entries: Mutex::default(), most }
    }

    /// The answer for a key, if there is one that is still good.
    pub fn get(&self, key: &str) -> Option<T> {
        let entries = self.entries.lock();
        entries.get(key).filter(|(until, _)| *until > Instant::now()).map(|(_, answer)| answer.clone())
    }

    /// Keeps an answer.
    pub fn put(&self, key: String, answer: T, ttl: Duration) {
        if ttl.is_zero() {
            return;
        }
        let mut entries = self.entries.lock();
        if entries.len() >= self.most {
            let now = Instant::now();
            entries.retain(|_, (until, _)| *until > now);
            if entries.len() >= self.most {
                entries.clear();
            }
        }
        entries.insert(key, (Instant::now() + ttl, answer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_end() {
        let cache = TimedCache::new(2);
        cache.put("a".into(), 1, Duration::from_secs(60));
        cache.put("b".into(), 2, Duration::from_nanos(1));
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!((cache.get("a"), cache.get("b")), (Some(1), None));
        cache.put("c".into(), 3, Duration::from_secs(60));
        assert_eq!((cache.get("a"), cache.get("c")), (Some(1), Some(3)));
        cache.put("d".into(), 4, Duration::from_secs(60));
        assert_eq!((cache.get("a"), cache.get("d")), (None, Some(4)));
        cache.put("e".into(), 5, Duration::ZERO);
        assert_eq!(cache.get("e"), None);
    }
}
