//! What `Retry-After` says: more, the more a priority level has to refuse.

use parking_lot::Mutex;
use std::collections::HashMap;

/// Never says more than this.
const MAX: i64 = 32;

/// How long clients of each priority level are asked to wait.
#[derive(Default)]
pub struct RetryAfter(Mutex<HashMap<String, Level>>);

struct Level {
    seconds: i64,
    /// When it was last raised.
    raised: i64,
    /// The second that refusals are being counted for, and those of earlier seconds.
    current: (i64, i64),
    history: Vec<(i64, i64)>,
}

impl RetryAfter {
    /// Counts a refusal at a time (in seconds); returns what to say.
    pub fn refuse(&self, level: &str, now: i64) -> i64 {
        let mut levels = self.0.lock();
        let level = levels.entry(level.to_owned()).or_insert_with(|| Level {
            seconds: 1,
            raised: 0,
            current: (now, 0),
            history: Vec::new(),
        });
        level.refuse(now);
        level.seconds
    }
}

impl Level {
    fn refuse(&mut self, now: i64) {
        if self.current.0 == now {
            self.current.1 += 1;
            return;
        }
        let past = std::mem::replace(&mut self.current, (now, 1));
        self.history.push(past);
        let kept = (2 * self.seconds).min(MAX);
        self.history.retain(|(second, _)| now - second <= kept);
        self.adapt(now);
    }

    /// Doubles it when many were refused in so many seconds, takes one off when few were.
    fn adapt(&mut self, now: i64) {
        let recent = self.history.iter().filter(|(second, _)| now - second <= self.seconds);
        let refused: i64 = recent.map(|(_, count)| count).sum();
        if now - self.raised >= self.seconds && refused >= 3 * self.seconds {
            self.seconds = (2 * self.seconds).min(MAX);
            self.raised = now;
        } else if refused < self.seconds && self.seconds > 1 {
            self.seconds -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_under_load_and_comes_down_again() {
        let retry = RetryAfter::default();
        let said = |now: i64, times: usize| (0..times).map(|_| retry.refuse("a", now)).last();
        assert_eq!(said(100, 5), Some(1));
        assert_eq!(said(101, 5), Some(2));
        assert_eq!(said(102, 5), Some(2), "raised a moment ago");
        assert_eq!(said(103, 5), Some(4));
        for second in 104..200 {
            said(second, 500);
        }
        assert_eq!(said(200, 1), Some(MAX));
        assert_eq!(said(300, 1), Some(MAX - 1));
        assert_eq!(retry.refuse("b", 300), 1, "each level for itself");
    }
}
