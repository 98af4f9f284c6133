//! A metric with its labelled children, and Prometheus' text form of it.

use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Children at most; what comes later is not counted, so that outside names cannot fill the memory.
const MAX_CHILDREN: usize = 20_000;

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A metric, made once as a `static` beside the code that feeds it.
pub struct Family {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    buckets: &'static [f64],
    children: RwLock<BTreeMap<String, Arc<Child>>>,
}

/// One combination of label values.
struct Child {
    values: Vec<String>,
    /// Bits of an `f64`: the value, or the sum of a histogram.
    value: AtomicU64,
    /// Observations per bucket; the last is everything above.
    counts: Vec<AtomicU64>,
}

impl Family {
    /// A number that only rises.
    pub const fn counter(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Self {
        Self::new(name, help, Kind::Counter, labels, &[])
    }

    /// A number that rises and falls.
    pub const fn gauge(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Self {
        Self::new(name, help, Kind::Gauge, labels, &[])
    }

    /// A distribution over buckets.
    pub const fn histogram(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        buckets: &'static [f64],
    ) -> Self {
        Self::new(name, help, Kind::Histogram, labels, buckets)
    }

    const fn new(
        name: &'static str,
        help: &'static str,
        kind: Kind,
        labels: &'static [&'static str],
        buckets: &'static [f64],
    ) -> Self {
        Self { name, help, kind, labels, buckets, children: RwLock::new(BTreeMap::new()) }
    }

    /// Adds to a counter or gauge; `values` are those of the labels, in order.
    pub fn add(&self, values: &[&str], amount: f64) {
        self.with(values, |child| child.add(amount));
    }

    /// Adds one.
    pub fn inc(&self, values: &[&str]) {
        self.add(values, 1.0);
    }

    /// Sets a gauge.
    pub fn set(&self, values: &[&str], value: f64) {
        self.with(values, |child| child.value.store(value.to_bits(), Ordering::Relaxed));
    }

    /// Adds an observation to a histogram.
    pub fn observe(&self, values: &[&str], value: f64) {
        self.with(values, |child| child.observe(self.buckets, value));
    }

    /// One child, for those who count often; `None` when there are too many.
    pub fn bind(&'static self, values: &[&str]) -> Option<Bound> {
        let mut bound = None;
        self.with(values, |child| bound = Some(child.clone()));
        bound.map(|child| Bound { family: self, child })
    }

    /// Forgets children whose first label has this value.
    pub fn forget(&self, first: &str) {
        self.children.write().retain(|_, child| child.values.first().is_none_or(|value| value != first));
    }

    fn with(&self, values: &[&str], f: impl FnOnce(&Arc<Child>)) {
        debug_assert_eq!(values.len(), self.labels.len(), "{}", self.name);
        let key = values.join("\u{1}");
        if let Some(child) = self.children.read().get(&key) {
            return f(child);
        }
        let mut children = self.children.write();
        if children.len() >= MAX_CHILDREN && !children.contains_key(&key) {
            return;
        }
        f(children.entry(key).or_insert_with(|| Arc::new(Child::new(values, self))));
    }

    /// Appends the text form; nothing for a metric without children.
    pub fn write(&self, out: &mut String) {
        let children = self.children.read();
        if children.is_empty() {
            return;
        }
        let kind = match self.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let _ = writeln!(out, "# HELP {} {}\n# TYPE {} {kind}", self.name, self.help, self.name);
        for child in children.values() {
            match self.kind {
                Kind::Histogram => self.write_histogram(child, out),
                Kind::Counter | Kind::Gauge => {
                    let _ = writeln!(out, "{}{} {}", self.name, self.pairs(child, None), child.get());
                }
            }
        }
    }

    fn write_histogram(&self, child: &Child, out: &mut String) {
        let mut total = 0;
        let bounds = self.buckets.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(&child.counts) {
            total += count.load(Ordering::Relaxed);
            let _ = writeln!(out, "{}_bucket{} {total}", self.name, self.pairs(child, Some(&bound)));
        }
        let pairs = self.pairs(child, None);
        let _ = writeln!(out, "{0}_sum{pairs} {1}\n{0}_count{pairs} {total}", self.name, child.get());
    }

    /// `{a="x",b="y"}`, or nothing.
    fn pairs(&self, child: &Child, bound: Option<&str>) -> String {
        let pairs = self.labels.iter().copied().zip(child.values.iter().map(String::as_str));
        let pairs: Vec<_> =
            pairs.chain(bound.map(|b| ("le", b))).map(|(k, v)| format!("{k}=\"{}\"", escape(v))).collect();
        if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) }
    }
}

impl Child {
    fn new(values: &[&str], family: &Family) -> Self {
        let counts = if family.kind == Kind::Histogram { family.buckets.len() + 1 } else { 0 };
        Self {
            values: values.iter().map(|v| (*v).to_owned()).collect(),
            value: AtomicU64::new(0),
            counts: (0..counts).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    fn get(&self) -> f64 {
        f64::from_bits(self.value.load(Ordering::Relaxed))
    }

    fn observe(&self, buckets: &[f64], value: f64) {
        self.add(value);
        if let Some(count) = self.counts.get(buckets.partition_point(|bound| *bound < value)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn add(&self, amount: f64) {
        let sum = |bits| Some((f64::from_bits(bits) + amount).to_bits());
        // The closure always gives a value, so the update cannot fail.
        let _ = self.value.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum);
    }
}

/// A child of a family.
pub struct Bound {
    family: &'static Family,
    child: Arc<Child>,
}

impl Bound {
    /// Adds one.
    pub fn inc(&self) {
        self.child.add(1.0);
    }

    /// Adds an observation.
    pub fn observe(&self, value: f64) {
        self.child.observe(self.family.buckets, value);
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_that_of_prometheus() {
        static COUNT: Family = Family::counter("c_total", "Counts.", &["a", "b"]);
        static TIME: Family = Family::histogram("t_seconds", "Times.", &[], &[0.5, 1.0]);
        COUNT.inc(&["x", "y\"z"]);
        COUNT.add(&["x", "y\"z"], 2.0);
        for value in [0.5, 0.7, 9.0] {
            TIME.observe(&[], value);
        }
        let mut text = String::new();
        COUNT.write(&mut text);
        TIME.write(&mut text);
        let want = "# HELP c_total Counts.\n# TYPE c_total counter\nc_total{a=\"x\",b=\"y\\\"z\"} 3\n\
                    # HELP t_seconds Times.\n# TYPE t_seconds histogram\n\
                    t_seconds_bucket{le=\"0.5\"} 1\nt_seconds_bucket{le=\"1\"} 2\nt_seconds_bucket{le=\"+Inf\"} 3\n\
                    t_seconds_sum 10.2\nt_seconds_count 3\n";
        assert_eq!(text, want);
    }

    #[test]
    fn children_are_bounded() {
        static MANY: Family = Family::counter("many_total", "Many.", &["a"]);
        for n in 0..MAX_CHILDREN + 10 {
            MANY.inc(&[&n.to_string()]);
        }
        assert_eq!(MANY.children.read().len(), MAX_CHILDREN);
        MANY.forget("7");
        assert_eq!(MANY.children.read().len(), MAX_CHILDREN - 1);
    }
}
