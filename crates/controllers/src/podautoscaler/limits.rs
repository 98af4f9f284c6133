//! What may be done of what metrics ask for: stabilization, rates and bounds.

use api::k8s::autoscaling::v2::{HPAScalingPolicy, HPAScalingRules};
use jiff::{SignedDuration, Timestamp};

/// How long a higher recommendation holds where the autoscaler says nothing.
const DOWNSCALE_STABILIZATION: SignedDuration = SignedDuration::from_mins(5);
/// Without rules, growth is at most to twice the size, or to this.
const SCALE_UP_MINIMUM: i32 = 4;
/// The longest that any rule looks back.
const LONGEST: SignedDuration = SignedDuration::from_hours(1);

/// What is remembered of an autoscaler: recommendations, and changes that were made.
#[derive(Debug, Default)]
pub(super) struct Memory {
    recommendations: Vec<(Timestamp, i32)>,
    /// Positive when replicas were added.
    changes: Vec<(Timestamp, i32)>,
}

/// Reason and message of a condition.
pub(super) type Why = (&'static str, &'static str);

/// What may be done.
#[derive(Debug, PartialEq)]
pub(super) struct Limited {
    pub replicas: i32,
    /// Of `AbleToScale`.
    pub able: Why,
    /// Of `ScalingLimited`.
    pub limited: bool,
    pub limit: Why,
}

/// Present size, wanted size and bounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub current: i32,
    pub wanted: i32,
    pub min: i32,
    pub max: i32,
}

const READY: Why = ("ReadyForNewScale", "recommended size matches current size");
const UP_STABILIZED: Why = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
);
const DOWN_STABILIZED: Why = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
);
const WITHIN: Why = ("DesiredWithinRange", "the desired count is within the acceptable range");
const UP_RATE: Why = ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const DOWN_RATE: Why = ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate");
const TOO_MANY: Why = ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const TOO_FEW: Why = ("TooFewReplicas", "the desired replica count is less than the minimum replica count");

impl Memory {
    /// The first size seen counts as a recommendation.
    pub fn begin(&mut self, current: i32, now: Timestamp) {
        if self.recommendations.is_empty() {
            self.recommendations.push((now, current));
        }
    }

    /// Remembers a change that was made.
    pub fn changed(&mut self, from: i32, to: i32, now: Timestamp) {
        self.changes.push((now, to - from));
    }

    /// Limits without rules.
    pub fn limit(&mut self, sizes: Sizes, now: Timestamp) -> Limited {
        let highest = self.since(now, DOWNSCALE_STABILIZATION).fold(sizes.wanted, i32::max);
        self.remember(sizes.wanted, now);
        let rate = sizes.current.saturating_mul(2).max(SCALE_UP_MINIMUM);
        let able = if highest == sizes.wanted { READY } else { DOWN_STABILIZED };
        let bounds = [(sizes.max > rate, UP_RATE), (true, TOO_MANY)];
        let over = bounds.into_iter().find(|(applies, _)| *applies).map_or(TOO_MANY, |(_, why)| why);
        bounded(highest, (sizes.min, TOO_FEW), (sizes.max.min(rate), over), able)
    }

    /// Limits by an autoscaler's rules.
    pub fn limit_by_rules(
        &mut self,
        sizes: Sizes,
        up: &HPAScalingRules,
        down: &HPAScalingRules,
        now: Timestamp,
    ) -> Limited {
        let window = |rules: &HPAScalingRules, default: SignedDuration| {
            rules.stabilization_window_seconds.map_or(default, |s| SignedDuration::from_secs(s.into()))
        };
        let lowest = self.since(now, window(up, SignedDuration::ZERO)).fold(sizes.wanted, i32::min);
        let highest = self.since(now, window(down, DOWNSCALE_STABILIZATION)).fold(sizes.wanted, i32::max);
        self.remember(sizes.wanted, now);
        let stable = sizes.current.max(lowest).min(highest);
        let able = match stable == sizes.wanted {
            true => READY,
            false if sizes.wanted >= sizes.current => UP_STABILIZED,
            false => DOWN_STABILIZED,
        };
        let unlimited = ((i32::MIN, TOO_FEW), (i32::MAX, TOO_MANY));
        let (least, most) = match stable.cmp(&sizes.current) {
            std::cmp::Ordering::Greater => {
                let rate = self.rate(sizes.current, up, 1, now).max(sizes.current);
                (unlimited.0, if sizes.max > rate { (rate, UP_RATE) } else { (sizes.max, TOO_MANY) })
            }
            std::cmp::Ordering::Less => {
                let rate = self.rate(sizes.current, down, -1, now).min(sizes.current);
                (if sizes.min < rate { (rate, DOWN_RATE) } else { (sizes.min, TOO_FEW) }, unlimited.1)
            }
            std::cmp::Ordering::Equal => unlimited,
        };
        bounded(stable, least, most, able)
    }

    /// The size that policies allow to reach in a direction (1 or -1).
    fn rate(&self, current: i32, rules: &HPAScalingRules, direction: i32, now: Timestamp) -> i32 {
        let select = rules.select_policy.as_deref().unwrap_or("Max");
        if select == "Disabled" {
            return current;
        }
        let sizes = rules.policies.iter().flatten().map(|policy| self.reach(current, policy, direction, now));
        // The greatest change is the highest size upwards and the lowest downwards.
        let farthest = match (select == "Min") == (direction > 0) {
            true => sizes.min(),
            false => sizes.max(),
        };
        farthest.unwrap_or(current)
    }

    fn reach(&self, current: i32, policy: &HPAScalingPolicy, direction: i32, now: Timestamp) -> i32 {
        let period = SignedDuration::from_secs(policy.period_seconds.into());
        let changes = self.changes.iter().filter(|(at, _)| now.duration_since(*at) < period);
        let start = current - changes.map(|(_, change)| change).sum::<i32>();
        let by = direction * policy.value;
        match policy.type_ == "Percent" {
            false => start.saturating_add(by),
            // Upwards the part is rounded up, so that there is any growth.
            true if direction > 0 => (f64::from(start) * (1.0 + f64::from(by) / 100.0)).ceil() as i32,
            true => (f64::from(start) * (1.0 + f64::from(by) / 100.0)) as i32,
        }
    }

    fn since(&self, now: Timestamp, window: SignedDuration) -> impl Iterator<Item = i32> {
        let recent = self.recommendations.iter().filter(move |(at, _)| now.duration_since(*at) < window);
        recent.map(|(_, recommendation)| *recommendation)
    }

    fn remember(&mut self, wanted: i32, now: Timestamp) {
        let recent = |at: &Timestamp| now.duration_since(*at) < LONGEST;
        self.recommendations.retain(|(at, _)| recent(at));
        self.changes.retain(|(at, _)| recent(at));
        self.recommendations.push((now, wanted));
    }
}

fn bounded(stable: i32, least: (i32, Why), most: (i32, Why), able: Why) -> Limited {
    let (replicas, limit) = match stable {
        size if size < least.0 => least,
        size if size > most.0 => most,
        size => (size, WITHIN),
    };
    Limited { replicas, able, limited: replicas != stable, limit }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn at(seconds: i64) -> Timestamp {
        NOW + SignedDuration::from_secs(seconds)
    }

    #[test]
    fn without_rules_growth_is_bounded_and_shrinking_waits() {
        let mut memory = Memory::default();
        let mut check = |seconds, current, wanted, want: (i32, &str, &str)| {
            let got = memory.limit(Sizes { current, wanted, min: 2, max: 20 }, at(seconds));
            assert_eq!((got.replicas, got.able.0, got.limit.0), want);
        };
        check(0, 3, 10, (6, "ReadyForNewScale", "ScaleUpLimit"));
        check(15, 6, 30, (12, "ReadyForNewScale", "ScaleUpLimit"));
        check(30, 12, 1, (20, "ScaleDownStabilized", "TooManyReplicas"));
        check(400, 12, 1, (2, "ReadyForNewScale", "TooFewReplicas"));
        check(415, 2, 3, (3, "ReadyForNewScale", "DesiredWithinRange"));
    }

    #[test]
    fn rules_bound_the_rate() {
        let rules = |value| serde_json::from_value::<HPAScalingRules>(value).expect("rules");
        let up = rules(json!({"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [
            {"type": "Pods", "value": 4, "periodSeconds": 60}, {"type": "Percent", "value": 10, "periodSeconds": 60}]}));
        let down = rules(json!({"stabilizationWindowSeconds": 0, "selectPolicy": "Min", "policies": [
            {"type": "Pods", "value": 1, "periodSeconds": 60}, {"type": "Percent", "value": 50, "periodSeconds": 60}]}));
        let mut memory = Memory::default();
        let mut check = |seconds, current, wanted, want: (i32, &str)| {
            let got = memory.limit_by_rules(Sizes { current, wanted, min: 1, max: 100 }, &up, &down, at(seconds));
            assert_eq!((got.replicas, got.limit.0), want);
            memory.changed(current, got.replicas, at(seconds));
        };
        check(0, 10, 30, (14, "ScaleUpLimit"));
        check(30, 14, 30, (14, "ScaleUpLimit"));
        check(100, 14, 30, (18, "ScaleUpLimit"));
        check(200, 18, 1, (17, "ScaleDownLimit"));
        check(230, 17, 1, (17, "ScaleDownLimit"));
        let off = rules(json!({"selectPolicy": "Disabled"}));
        let got = memory.limit_by_rules(Sizes { current: 5, wanted: 1, min: 1, max: 9 }, &up, &off, at(2000));
        assert_eq!((got.replicas, got.able.0), (5, "ReadyForNewScale"));
    }
}
