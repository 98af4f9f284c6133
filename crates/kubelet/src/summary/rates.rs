//! Rates of counters: how fast CPU time was used since the reading before.

use parking_lot::Mutex;
use std::collections::HashMap;

/// Most counters that are followed.
const MAX_ENTRIES: usize = 8192;
/// Readings closer together than this say too little, ns.
const SHORTEST: i64 = 1_000_000_000;

#[derive(Clone, Copy)]
struct Reading {
    at: i64,
    value: u64,
    rate: Option<u64>,
}

/// Counters by name, each with its last reading.
#[derive(Default)]
pub struct Rates(Mutex<HashMap<String, Reading>>);

impl Rates {
    /// Notes a reading (ns, ns of CPU time) and returns billionths of a CPU used; `None` at the first.
    pub fn observe(&self, key: &str, at: i64, value: u64) -> Option<u64> {
        let mut entries = self.0.lock();
        if entries.len() >= MAX_ENTRIES && !entries.contains_key(key) {
            entries.clear();
        }
        let entry = entries.entry(key.to_owned()).or_insert(Reading { at, value, rate: None });
        let passed = at - entry.at;
        if passed >= SHORTEST {
            let used = value.saturating_sub(entry.value);
            let rate = u128::from(used) * 1_000_000_000 / u128::try_from(passed).unwrap_or(1);
            *entry = Reading { at, value, rate: u64::try_from(rate).ok() };
        }
        entry.rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_cpu() {
        let rates = Rates::default();
        assert_eq!(rates.observe("a", 0, 5), None);
        assert_eq!(rates.observe("a", 2_000_000_000, 1_000_000_005), Some(500_000_000));
        assert_eq!(rates.observe("a", 2_000_000_001, 1_000_000_009), Some(500_000_000), "too soon for another");
        assert_eq!(rates.observe("a", 4_000_000_000, 0), Some(0), "a counter that began anew");
    }
}
