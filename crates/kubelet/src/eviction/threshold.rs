//! Thresholds: what of a resource must be left, and when less of it counts.

use crate::configuration::{KubeletConfiguration, Strings, go_duration};
use api::quantity::{Format, Quantity};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Signals, in upstream's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// `memory.available`
    Memory,
    /// `allocatableMemory.available`
    AllocatableMemory,
    /// `nodefs.available`
    NodeFs,
    /// `nodefs.inodesFree`
    NodeFsInodes,
    /// `imagefs.available`
    ImageFs,
    /// `imagefs.inodesFree`
    ImageFsInodes,
    /// `containerfs.available`
    ContainerFs,
    /// `containerfs.inodesFree`
    ContainerFsInodes,
    /// `pid.available`
    Pid,
}

const NAMES: [(&str, Signal); 9] = [
    ("memory.available", Signal::Memory),
    ("allocatableMemory.available", Signal::AllocatableMemory),
    ("nodefs.available", Signal::NodeFs),
    ("nodefs.inodesFree", Signal::NodeFsInodes),
    ("imagefs.available", Signal::ImageFs),
    ("imagefs.inodesFree", Signal::ImageFsInodes),
    ("containerfs.available", Signal::ContainerFs),
    ("containerfs.inodesFree", Signal::ContainerFsInodes),
    ("pid.available", Signal::Pid),
];

impl Signal {
    fn parse(name: &str) -> Result<Self, String> {
        let found = NAMES.iter().find(|(n, _)| *n == name).map(|(_, signal)| *signal);
        found.ok_or_else(|| format!("unsupported eviction signal {name}"))
    }

    /// The name in configurations and metrics.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, signal)| *signal == self).map_or("", |(name, _)| name)
    }

    /// The resource that is starved.
    pub fn resource(self) -> &'static str {
        match self {
            Self::Memory | Self::AllocatableMemory => "memory",
            Self::NodeFs | Self::ImageFs | Self::ContainerFs => "ephemeral-storage",
            Self::NodeFsInodes | Self::ImageFsInodes | Self::ContainerFsInodes => "inodes",
            Self::Pid => "pids",
        }
    }

    /// The condition of the node.
    pub fn condition(self) -> &'static str {
        match self {
            Self::Memory | Self::AllocatableMemory => "MemoryPressure",
            Self::Pid => "PIDPressure",
            _ => "DiskPressure",
        }
    }

    /// The unit its quantities are printed in.
    pub fn format(self) -> Format {
        match self {
            Self::NodeFsInodes | Self::ImageFsInodes | Self::ContainerFsInodes | Self::Pid => Format::DecimalSi,
            _ => Format::BinarySi,
        }
    }
}

/// A part of a resource.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// So much.
    Quantity(Quantity),
    /// A fraction of the capacity.
    Fraction(f32),
}

impl Amount {
    /// The quantity, given the capacity.
    pub fn of(&self, capacity: i64) -> Quantity {
        match self {
            Self::Quantity(quantity) => *quantity,
            Self::Fraction(part) => Quantity::from_units((capacity as f64 * f64::from(*part)) as i64, Format::BinarySi),
        }
    }
}

/// One threshold.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    /// What is looked at.
    pub signal: Signal,
    /// What must be left.
    pub value: Amount,
    /// How long it may be missed; zero: a hard threshold.
    pub grace: Duration,
    /// How much more is reclaimed once it is missed.
    pub minimum_reclaim: Option<Amount>,
}

impl Threshold {
    /// Whether pods go at once.
    pub fn is_hard(&self) -> bool {
        self.grace.is_zero()
    }

    /// What has to be left, with the minimum reclaim where that is asked for.
    pub fn quantity(&self, capacity: i64, with_reclaim: bool) -> Quantity {
        let own = self.value.of(capacity);
        match self.minimum_reclaim.filter(|_| with_reclaim) {
            Some(more) => own.plus(&more.of(capacity)),
            None => own,
        }
    }
}

/// What is there of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// What is left.
    pub available: i64,
    /// All of it.
    pub capacity: i64,
}

/// Observations by signal.
pub type Observations = BTreeMap<Signal, Observation>;

/// The thresholds of a configuration; the error is upstream's text.
pub fn parse(settings: &KubeletConfiguration) -> Result<Vec<Threshold>, String> {
    let mut out = statements(&settings.eviction_hard)?;
    let mut periods = BTreeMap::new();
    for (name, text) in &settings.eviction_soft_grace_period {
        let period = go_duration::parse(text).ok_or_else(|| format!("time: invalid duration {text:?}"))?;
        periods.insert(Signal::parse(name)?, period);
    }
    for mut soft in statements(&settings.eviction_soft)? {
        soft.grace = periods.get(&soft.signal).copied().filter(|p| !p.is_zero()).ok_or_else(|| {
            format!("grace period must be specified for the soft eviction threshold {}", soft.signal.name())
        })?;
        out.push(soft);
    }
    for (name, text) in &settings.eviction_minimum_reclaim {
        let (signal, amount) = (Signal::parse(name)?, amount(name, text)?);
        out.iter_mut().filter(|t| t.signal == signal).for_each(|t| t.minimum_reclaim = Some(amount));
    }
    if settings.enforce_node_allocatable.iter().any(|e| e == "pods") {
        let hard = out.iter().find(|t| t.signal == Signal::Memory && t.is_hard()).cloned();
        out.extend(hard.map(|t| Threshold { signal: Signal::AllocatableMemory, ..t }));
    }
    Ok(out)
}

fn statements(list: &Strings) -> Result<Vec<Threshold>, String> {
    let mut out = Vec::new();
    for (name, text) in list {
        let signal = Signal::parse(name)?;
        // Upstream's way to switch a threshold off.
        if ["0%", "100%"].contains(&text.as_str()) {
            continue;
        }
        let value = amount(name, text)?;
        if matches!(value, Amount::Quantity(q) if q.sign() <= 0) {
            return Err(format!("eviction threshold {name} must be positive: {text}"));
        }
        out.push(Threshold { signal, value, grace: Duration::ZERO, minimum_reclaim: None });
    }
    Ok(out)
}

fn amount(name: &str, text: &str) -> Result<Amount, String> {
    let Some(percent) = text.strip_suffix('%') else {
        let parsed = Quantity::parse(text);
        return parsed
            .map(Amount::Quantity)
            .map_err(|_| format!("quantities must match the regular expression: {text}"));
    };
    let part: f32 = percent.parse().map_err(|_| format!("strconv.ParseFloat: parsing {percent:?}: invalid syntax"))?;
    if part < 0.0 {
        return Err(format!("eviction percentage threshold {name} must be >= 0%: {text}"));
    }
    if part > 100.0 {
        return Err(format!("eviction percentage threshold {name} must be <= 100%: {text}"));
    }
    Ok(Amount::Fraction(part / 100.0))
}

/// The thresholds of which less is left than must be.
pub fn met<'a>(
    thresholds: impl IntoIterator<Item = &'a Threshold>,
    observations: &Observations,
    with_reclaim: bool,
) -> Vec<Threshold> {
    let missed = |threshold: &&Threshold| {
        observations.get(&threshold.signal).is_some_and(|seen| {
            threshold.quantity(seen.capacity, with_reclaim) > Quantity::from_units(seen.available, Format::BinarySi)
        })
    };
    thresholds.into_iter().filter(missed).cloned().collect()
}

/// What is remembered from one look to the next.
#[derive(Default)]
pub struct History {
    first_seen: Vec<(Threshold, Instant)>,
    /// Thresholds whose grace has passed, until enough is reclaimed.
    met: Vec<Threshold>,
    last_condition: BTreeMap<&'static str, Instant>,
}

impl History {
    /// Takes in a look at the node: which thresholds are to be acted upon.
    pub fn observe(&mut self, thresholds: &[Threshold], seen: &Observations, now: Instant) -> Vec<Threshold> {
        let mut current = met(thresholds, seen, false);
        for unresolved in met(&self.met, seen, true) {
            if !current.contains(&unresolved) {
                current.push(unresolved);
            }
        }
        let since = |t: &Threshold| self.first_seen.iter().find(|(known, _)| known == t).map_or(now, |(_, at)| *at);
        self.first_seen = current.iter().map(|t| (t.clone(), since(t))).collect();
        for threshold in &current {
            self.last_condition.insert(threshold.signal.condition(), now);
        }
        let due = |(t, at): &&(Threshold, Instant)| now.duration_since(*at) >= t.grace;
        self.met = self.first_seen.iter().filter(due).map(|(t, _)| t.clone()).collect();
        self.met.clone()
    }

    /// Conditions of the node: those seen within the transition period.
    pub fn conditions(&self, period: Duration, now: Instant) -> Vec<&'static str> {
        self.last_condition.iter().filter(|(_, at)| now.duration_since(**at) < period).map(|(name, _)| *name).collect()
    }

    /// When something changes by time alone: a soft grace ends, or a condition's transition period.
    pub fn next_change(&self, period: Duration, now: Instant) -> Option<Duration> {
        let graces = self.first_seen.iter().map(|(t, at)| *at + t.grace);
        let periods = self.last_condition.values().map(|at| *at + period);
        graces.chain(periods).filter(|at| *at > now).map(|at| at - now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> KubeletConfiguration {
        KubeletConfiguration::parse(text).expect("settings")
    }

    fn seen(available: i64) -> Observations {
        [(Signal::Memory, Observation { available, capacity: 1000 })].into()
    }

    #[test]
    fn hard_soft_and_reclaim() {
        let parsed = parse(&settings(
            "evictionHard: {memory.available: \"100\"}\nevictionSoft: {memory.available: 20%}\n\
             evictionSoftGracePeriod: {memory.available: 30s}\nevictionMinimumReclaim: {memory.available: \"50\"}\n\
             enforceNodeAllocatable: []",
        ))
        .expect("parses");
        assert_eq!(parsed.len(), 2);
        let (start, mut history) = (Instant::now(), History::default());
        let at = |s: u64| start + Duration::from_secs(s);
        assert!(history.observe(&parsed, &seen(500), at(0)).is_empty());
        assert!(history.observe(&parsed, &seen(150), at(1)).is_empty(), "the soft threshold has its grace");
        assert_eq!(history.conditions(Duration::from_secs(5), at(1)), ["MemoryPressure"], "the condition has not");
        let due = history.observe(&parsed, &seen(150), at(31));
        assert!(due.len() == 1 && !due[0].is_hard());
        assert!(history.observe(&parsed, &seen(90), at(32)).iter().any(Threshold::is_hard));
        assert!(!history.observe(&parsed, &seen(240), at(33)).is_empty(), "50 more than 20 % are to be reclaimed");
        assert!(history.observe(&parsed, &seen(260), at(34)).is_empty());
        assert_eq!(history.conditions(Duration::from_secs(5), at(37)), ["MemoryPressure"]);
        assert!(history.conditions(Duration::from_secs(5), at(39)).is_empty(), "after the transition period");
    }

    #[test]
    fn allocatable_memory_follows_memory() {
        let parsed = parse(&KubeletConfiguration::default()).expect("defaults");
        assert!(parsed.iter().any(|t| t.signal == Signal::AllocatableMemory));
        assert_eq!(parsed.len(), 6);
    }
}
