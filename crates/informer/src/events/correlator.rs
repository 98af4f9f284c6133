//! What was told before: repetitions become one event, too many alike are combined, floods are cut.
//!
//! Text is known by fingerprints, so that what is remembered lies in a few large tables. Were it kept as strings, the
//! thousands of them would hold a page each of those that a busy time had filled.

use super::EventType;
use api::k8s::core::v1::ObjectReference;
use jiff::Timestamp;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::time::Duration;
use tokio::time::Instant;

/// A table is dropped wholesale beyond this many entries.
const CACHE: usize = 4096;
/// Similar events within [`AGGREGATE_WINDOW`] beyond which they are combined.
const AGGREGATE_MAX: usize = 10;
const AGGREGATE_WINDOW: Duration = Duration::from_secs(600);
const SPAM_BURST: f32 = 25.0;
const SPAM_RATE: f32 = 1.0 / 300.0;
const COMBINED: &str = "(combined from similar events)";

/// 128 bits under keys of this process, which nobody can make collide.
type Fingerprint = (u64, u64);

/// An event that was written.
#[derive(Clone, Copy)]
pub struct Written {
    /// When it was first seen, of which its name is made.
    pub born: Timestamp,
    /// How often it was seen.
    pub count: u32,
    last: Instant,
}

struct Similar {
    messages: [u32; AGGREGATE_MAX],
    known: u8,
    last: Instant,
}

struct Bucket {
    tokens: f32,
    refilled: Instant,
}

/// Remembers the events of one component.
#[derive(Default)]
pub struct Correlator {
    keys: [RandomState; 2],
    written: HashMap<Fingerprint, Written>,
    similar: HashMap<Fingerprint, Similar>,
    buckets: HashMap<Fingerprint, Bucket>,
}

impl Correlator {
    /// Takes a token of the object's bucket; false when it has none left.
    pub fn admit(&mut self, object: &ObjectReference) -> bool {
        let now = Instant::now();
        let key = self.fingerprint(identity(object));
        let bucket = room(&mut self.buckets).entry(key).or_insert(Bucket { tokens: SPAM_BURST, refilled: now });
        let refill = now.duration_since(bucket.refilled).as_secs_f32() * SPAM_RATE;
        bucket.tokens = (bucket.tokens + refill).min(SPAM_BURST);
        bucket.refilled = now;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }

    /// Combines events that differ in their text only, once there are too many: the text to write.
    pub fn aggregate(&mut self, object: &ObjectReference, kind: EventType, reason: &str, message: String) -> String {
        let now = Instant::now();
        let key = self.fingerprint((identity(object), kind, reason));
        let text = self.keys[0].hash_one(&message) as u32;
        let similar =
            room(&mut self.similar).entry(key).or_insert(Similar { messages: [0; AGGREGATE_MAX], known: 0, last: now });
        if now.duration_since(similar.last) > AGGREGATE_WINDOW {
            similar.known = 0;
        }
        similar.last = now;
        let known = usize::from(similar.known);
        if similar.messages[..known].contains(&text) {
            return message;
        }
        let Some(free) = similar.messages.get_mut(known) else { return format!("{COMBINED}: {message}") };
        *free = text;
        similar.known += 1;
        message
    }

    /// What identifies events that say the same.
    pub fn same(&self, object: &ObjectReference, kind: EventType, reason: &str, message: &str) -> Fingerprint {
        let message = if message.starts_with(COMBINED) { COMBINED } else { message };
        self.fingerprint((identity(object), kind, reason, message))
    }

    /// Counts one more of an event that was written within `window`: what is known of it.
    pub fn repeated(&mut self, same: Fingerprint, window: Duration) -> Option<Written> {
        let now = Instant::now();
        let written = self.written.get_mut(&same).filter(|w| now.duration_since(w.last) < window)?;
        written.count = written.count.saturating_add(1);
        written.last = now;
        Some(*written)
    }

    /// Remembers an event that was written anew.
    pub fn created(&mut self, same: Fingerprint, born: Timestamp) {
        room(&mut self.written).insert(same, Written { born, count: 1, last: Instant::now() });
    }

    fn fingerprint(&self, of: impl Hash) -> Fingerprint {
        (self.keys[0].hash_one(&of), self.keys[1].hash_one(&of))
    }
}

fn room<T>(table: &mut HashMap<Fingerprint, T>) -> &mut HashMap<Fingerprint, T> {
    if table.len() > CACHE {
        table.clear();
    }
    table
}

fn identity(object: &ObjectReference) -> impl Hash {
    (&object.kind, &object.namespace, &object.name, &object.uid, &object.field_path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_flood_from_one_object_is_cut() {
        let mut correlator = Correlator::default();
        let object = ObjectReference::default();
        assert_eq!((0..40).filter(|_| correlator.admit(&object)).count(), 25);
        let other = ObjectReference { field_path: Some("spec.containers{c}".into()), ..object };
        assert!(correlator.admit(&other));
    }

    #[tokio::test(start_paused = true)]
    async fn texts_are_combined_until_it_was_quiet() {
        let mut correlator = Correlator::default();
        let object = ObjectReference::default();
        let mut tell = |message: String| correlator.aggregate(&object, EventType::Warning, "R", message);
        let told: Vec<String> = (0..12).map(|n| tell(n.to_string())).collect();
        assert_eq!(told[9..], ["9", "(combined from similar events): 10", "(combined from similar events): 11"]);
        assert_eq!(tell("3".into()), "3");
        tokio::time::advance(AGGREGATE_WINDOW + Duration::from_secs(1)).await;
        assert_eq!(tell("10".into()), "10");
    }

    #[tokio::test(start_paused = true)]
    async fn what_says_the_same_is_counted() {
        let mut correlator = Correlator::default();
        let object = ObjectReference::default();
        let same = |c: &Correlator, message: &str| c.same(&object, EventType::Normal, "R", message);
        let [a, b] = ["a", "b"].map(|message| same(&correlator, message));
        assert_ne!(a, b);
        let combined = [1, 2].map(|n| same(&correlator, &format!("{COMBINED}: {n}")));
        assert_eq!(combined[0], combined[1]);
        let window = Duration::from_secs(60);
        assert!(correlator.repeated(a, window).is_none());
        let born = Timestamp::now();
        correlator.created(a, born);
        let known = correlator.repeated(a, window).unwrap();
        assert_eq!((known.count, known.born), (2, born));
        tokio::time::advance(window).await;
        assert!(correlator.repeated(a, window).is_none() && correlator.repeated(b, window).is_none());
    }
}
