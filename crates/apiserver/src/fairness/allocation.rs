//! Dividing seats between priority levels: each gets the same multiple of its target, within its bounds.

/// A level's part in the division.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Class {
    /// It gets no less.
    pub lower: f64,
    /// It gets no more.
    pub upper: f64,
    /// What it would like.
    pub target: f64,
}

/// A target of nothing still takes part.
const MIN_TARGET: f64 = 0.001;
const PRECISION: f64 = 1e-9;

impl Class {
    fn at(&self, proportion: f64) -> f64 {
        (proportion * self.target.max(MIN_TARGET)).clamp(self.lower, self.upper.max(self.lower))
    }
}

/// Divides `sum`; also gives the multiple. `None` when the bounds do not allow that sum.
pub fn divide(sum: f64, classes: &[Class]) -> Option<(Vec<f64>, f64)> {
    let total = |proportion: f64| classes.iter().map(|class| class.at(proportion)).sum::<f64>();
    let highest = classes.iter().map(|c| c.upper / c.target.max(MIN_TARGET)).fold(0.0, f64::max);
    if total(0.0) > sum + PRECISION || total(highest) < sum - PRECISION {
        return None;
    }
    // What is given rises with the multiple, so halving finds the one that fits.
    let (mut low, mut high) = (0.0, highest);
    for _ in 0..100 {
        let middle = (low + high) / 2.0;
        if total(middle) < sum { low = middle } else { high = middle }
    }
    Some((classes.iter().map(|class| class.at(high)).collect(), high))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_divided() {
        let class = |lower, upper, target| Class { lower, upper, target };
        let check = |sum: f64, classes: &[Class], want: Option<&[f64]>| {
            let got = divide(sum, classes).map(|(seats, _)| seats);
            match (&got, want) {
                (None, None) => {}
                (Some(got), Some(want)) => {
                    let near = got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-6);
                    assert!(near, "{sum} {classes:?}: {got:?}, not {want:?}");
                }
                _ => panic!("{sum} {classes:?}: {got:?}, not {want:?}"),
            }
        };
        check(30.0, &[class(0.0, 100.0, 10.0), class(0.0, 100.0, 20.0)], Some(&[10.0, 20.0]));
        check(60.0, &[class(0.0, 100.0, 10.0), class(0.0, 100.0, 20.0)], Some(&[20.0, 40.0]));
        check(60.0, &[class(0.0, 100.0, 10.0), class(0.0, 25.0, 20.0)], Some(&[35.0, 25.0]));
        check(20.0, &[class(15.0, 100.0, 15.0), class(0.0, 100.0, 30.0)], Some(&[15.0, 5.0]));
        check(9.0, &[class(10.0, 100.0, 10.0)], None);
        check(90.0, &[class(10.0, 80.0, 10.0)], None);
        check(0.0, &[], Some(&[]));
    }
}
