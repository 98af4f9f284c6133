//! Ranges of sizes and costs, whose arithmetic saturates.

use std::ops::{Add, Mul};

/// A range of costs, or of sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct CostRange {
    /// At least.
    pub min: u64,
    /// At most.
    pub max: u64,
}

impl CostRange {
    /// Nothing is known.
    pub(crate) const UNKNOWN: Self = Self { min: 0, max: u64::MAX };

    pub(crate) const fn fixed(n: u64) -> Self {
        Self { min: n, max: n }
    }

    pub(crate) const fn new(min: u64, max: u64) -> Self {
        Self { min, max }
    }

    /// A part of it, rounded up.
    pub(crate) fn part(self, part: f64) -> Self {
        Self { min: crate::cost::factor(self.min, part), max: crate::cost::factor(self.max, part) }
    }

    /// The range that holds both.
    pub(crate) fn union(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

impl Add for CostRange {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }
}

impl Mul for CostRange {
    type Output = Self;

    fn mul(self, other: Self) -> Self {
        Self { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }
}
