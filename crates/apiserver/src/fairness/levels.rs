//! The priority levels: their seats, what they lend and borrow, and their queues.

use super::allocation::{self, Class};
use super::defaults;
use super::demand::Demand;
use super::metrics;
use super::queues::{Left, QueueSet, Refusal, Work};
use super::spec::{Discipline, PriorityLevel};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Share of a level that one request may take.
const MAX_SHARE: f64 = 0.15;

/// A priority level at work.
pub struct Level<T> {
    /// What it was made from.
    pub spec: PriorityLevel,
    /// What is done with requests that find no seat.
    pub discipline: Discipline,
    /// Its queues.
    pub queues: QueueSet<T>,
    /// Whether its object is gone, and it stays only until it is idle.
    pub quiescing: bool,
    demand: Demand,
    nominal: u64,
    lower: u64,
    upper: u64,
}

/// All priority levels.
pub struct Levels<T> {
    /// Seats of the server.
    total: u64,
    nominal_sum: u64,
    states: BTreeMap<String, Level<T>>,
}

impl<T> Levels<T> {
    /// The mandatory levels, for a server with so many seats.
    pub fn new(now: f64, total: u64) -> Self {
        let mut levels = Self { total, nominal_sum: 0, states: BTreeMap::new() };
        levels.configure(now, Vec::new());
        levels
    }

    /// Takes over the objects there are. Broken ones count as absent; absent mandatory ones are imagined; levels
    /// that are gone stay until they are idle.
    pub fn configure(&mut self, now: f64, specs: Vec<PriorityLevel>) {
        let mut wanted: BTreeMap<String, (PriorityLevel, Discipline)> = BTreeMap::new();
        for spec in specs.into_iter().chain(defaults::mandatory_levels()) {
            let Some(discipline) = spec.discipline() else {
                tracing::warn!(name = spec.metadata.name, "a priority level contradicts itself and is ignored");
                continue;
            };
            wanted.entry(spec.metadata.name.clone()).or_insert((spec, discipline));
        }
        let mandatory = |name: &str| matches!(name, "exempt" | "catch-all");
        self.states.retain(|name, level| {
            // An imagined level does not replace the one that an object had made.
            let gone = !wanted.contains_key(name);
            level.quiescing = gone;
            let keep = !gone || mandatory(name) || !level.queues.is_idle();
            if !keep {
                metrics::forget(name);
            }
            keep
        });
        for (name, (spec, discipline)) in wanted {
            match self.states.get_mut(&name) {
                Some(level) => (level.spec, level.discipline) = (spec, discipline),
                None => drop(self.states.insert(name, Level::new(now, spec, discipline))),
            }
        }
        self.set_limits(now);
    }

    fn set_limits(&mut self, now: f64) {
        let shares: u64 = self.states.values().map(|level| u64::from(level.spec.shares())).sum();
        self.nominal_sum = 0;
        for (name, level) in &mut self.states {
            level.set_limits(self.total, shares.max(1));
            self.nominal_sum += level.nominal;
            metrics::limits(name, level.nominal, level.lower, level.upper);
        }
        self.share_out(now);
    }

    /// Moves seats from levels that do not need them to those that do; called every ten seconds.
    pub fn adjust(&mut self, now: f64) {
        self.states.values_mut().for_each(|level| level.demand.turn(now));
        self.share_out(now);
    }

    fn share_out(&mut self, now: f64) {
        let (exempt, others): (Vec<_>, Vec<_>) =
            self.states.iter_mut().partition(|(_, level)| level.discipline == Discipline::Exempt);
        let mut left = self.nominal_sum as f64;
        for (name, level) in exempt {
            let seats = level.lower.max(level.demand.seen.high_watermark);
            left -= seats as f64;
            level.give(now, name, seats, seats as f64);
        }
        let classes: Vec<Class> = others.iter().map(|(_, level)| level.class()).collect();
        let lowest: f64 = others.iter().map(|(_, level)| level.lower as f64).sum();
        let wanted: f64 = classes.iter().map(|class| class.lower).sum();
        let divided = if left > wanted { allocation::divide(self.nominal_sum as f64, &classes) } else { None };
        metrics::FAIR_FRACTION.set(&[], divided.as_ref().map_or(0.0, |(_, fraction)| *fraction));
        // Where exempt requests leave too little, each level gets between its least and what it wants.
        let part = if wanted > lowest { ((left - lowest) / (wanted - lowest)).clamp(0.0, 1.0) } else { 0.0 };
        for (at, (name, level)) in others.into_iter().enumerate() {
            let squeezed = level.lower as f64 + (classes[at].lower - level.lower as f64) * part;
            let seats = divided.as_ref().map_or(squeezed, |(seats, _)| seats[at]);
            level.give(now, name, seats.round() as u64, classes[at].target);
        }
    }

    /// The level of a name.
    pub fn get(&self, name: &str) -> Option<&Level<T>> {
        self.states.get(name)
    }

    /// All levels by name.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Level<T>)> {
        self.states.iter()
    }

    /// Whether an object (or the imagination) gives a level of this name.
    pub fn has(&self, name: &str) -> bool {
        self.states.get(name).is_some_and(|level| !level.quiescing)
    }

    /// A request comes to a level.
    pub fn arrive(&mut self, now: f64, level: &str, work: Work, flow: u64, about: Arc<T>) -> Result<u64, Refusal> {
        let Some(level) = self.states.get_mut(level) else { return Err(Refusal::ConcurrencyLimit) };
        let arrived = level.queues.arrive(now, work, flow, about);
        level.note(now);
        arrived
    }

    /// A request leaves a level; also tells whether the level waited for that to be given up.
    pub fn leave(&mut self, now: f64, level: &str, id: u64) -> (Left, bool) {
        let Some(level) = self.states.get_mut(level) else { return (Left::Unknown, false) };
        let left = level.queues.leave(now, id);
        level.note(now);
        (left, level.quiescing && level.queues.is_idle())
    }

    /// The seats of a request that lingered are free.
    pub fn release(&mut self, now: f64, level: &str, id: u64) {
        if let Some(level) = self.states.get_mut(level) {
            level.queues.release(now, id);
            level.note(now);
        }
    }

    /// Takes what has started since the last call at a level.
    pub fn take_started(&mut self, level: &str) -> Vec<Arc<T>> {
        let Some(level) = self.states.get_mut(level) else { return Vec::new() };
        let started = level.queues.take_started();
        started.into_iter().filter_map(|id| Some(level.queues.requests.get(&id)?.about.clone())).collect()
    }

    /// As [`Levels::take_started`], at all levels (after a change of limits).
    pub fn take_all_started(&mut self) -> Vec<Arc<T>> {
        let names: Vec<_> = self.states.keys().cloned().collect();
        names.iter().flat_map(|name| self.take_started(name)).collect()
    }
}

impl<T> Level<T> {
    fn new(now: f64, spec: PriorityLevel, discipline: Discipline) -> Self {
        Self {
            spec,
            discipline,
            queues: QueueSet::new(now, discipline, 0),
            quiescing: false,
            demand: Demand::new(now),
            nominal: 0,
            lower: 0,
            upper: 0,
        }
    }

    fn set_limits(&mut self, total: u64, shares: u64) {
        let percent = |of: u64, percent: u32| (of as f64 * f64::from(percent) / 100.0).round() as u64;
        self.nominal = (total * u64::from(self.spec.shares())).div_ceil(shares);
        self.lower = self.nominal - percent(self.nominal, self.spec.lendable_percent().min(100));
        let borrows = self.spec.borrowing_limit_percent().map_or(total, |p| percent(self.nominal, p));
        self.upper = self.nominal + borrows;
    }

    fn class(&self) -> Class {
        let wanted = self.lower.max(self.nominal.min(self.demand.seen.high_watermark)) as f64;
        Class { lower: wanted, upper: self.upper as f64, target: wanted.max(self.demand.seen.smoothed) }
    }

    fn give(&mut self, now: f64, name: &str, seats: u64, target: f64) {
        self.queues.configure(now, self.discipline, seats);
        self.note(now);
        metrics::adjusted(name, &self.demand.seen, target, seats);
    }

    fn note(&mut self, now: f64) {
        self.demand.set(now, self.queues.demand());
    }

    /// Seats that one request may take at most; `None`: as the estimate of the request says.
    pub fn max_seats(&self) -> Option<u64> {
        let Discipline::Queue(queuing) = self.discipline else { return None };
        let share = (self.nominal as f64 * MAX_SHARE).ceil() as u64;
        Some(share.min(self.nominal / queuing.hand_size.max(1) as u64).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn level(name: &str, shares: u32, lendable: u32) -> PriorityLevel {
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"type": "Limited", "limited": {
            "nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": {"type": "Queue",
                "queuing": {"queues": 4, "handSize": 1, "queueLengthLimit": 10}}}}}))
        .expect("level")
    }

    #[test]
    fn seats_follow_shares_and_are_lent() {
        let mut levels: Levels<()> = Levels::new(0.0, 100);
        levels.configure(0.0, vec![level("a", 45, 50), level("b", 50, 0)]);
        // catch-all has 5 shares.
        let nominal = |levels: &Levels<()>, name: &str| levels.get(name).map(|l| (l.nominal, l.lower, l.upper));
        assert_eq!(nominal(&levels, "a"), Some((45, 22, 145)));
        assert_eq!(nominal(&levels, "b"), Some((50, 50, 150)));
        assert_eq!(nominal(&levels, "exempt"), Some((0, 0, 100)));
        let b: Vec<_> = (0..60).map(|n| levels.arrive(1.0, "b", Work::ONE, n, Arc::new(())).expect("queued")).collect();
        levels.adjust(10.0);
        assert!(levels.get("b").is_some_and(|l| l.queues.limit() > 50), "b borrows what a lends");
        assert!(levels.get("a").is_some_and(|l| l.queues.limit() >= 22));
        for id in b {
            levels.leave(11.0, "b", id);
        }
    }

    #[test]
    fn levels_go_when_they_are_idle() {
        let mut levels: Levels<()> = Levels::new(0.0, 100);
        levels.configure(0.0, vec![level("a", 45, 50)]);
        let id = levels.arrive(1.0, "a", Work::ONE, 1, Arc::new(())).expect("a seat");
        levels.configure(2.0, Vec::new());
        assert!(levels.get("a").is_some() && !levels.has("a"));
        assert_eq!(levels.leave(3.0, "a", id), (Left::Done, true));
        levels.configure(3.0, Vec::new());
        assert!(levels.get("a").is_none() && levels.has("catch-all"));
    }
}
