//! A set of numbers of a range, each taken at most once.

use rand::RngExt;
use std::collections::HashSet;

/// The lowest part of a range is left to static requests for as long as the rest suffices.
const STATIC_MIN: u64 = 16;
const STATIC_MAX: u64 = 256;
const STATIC_STEP: u64 = 16;
/// Ports: the band is half as large as that of addresses at most.
const TRIES: usize = 32;

/// Numbers from `first` to `last`.
pub struct Pool<T> {
    first: T,
    last: T,
    taken: HashSet<T>,
}

/// Why a number cannot be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Someone has it.
    Taken,
    /// It is not of the range.
    OutOfRange,
    /// None is left.
    Full,
}

impl Pool<u64> {
    /// An empty pool.
    pub fn new(first: u64, last: u64) -> Self {
        Self { first, last: last.max(first), taken: HashSet::new() }
    }

    /// Takes one number.
    pub fn take(&mut self, number: u64) -> Result<(), Refused> {
        match () {
            () if !(self.first..=self.last).contains(&number) => Err(Refused::OutOfRange),
            () if !self.taken.insert(number) => Err(Refused::Taken),
            () => Ok(()),
        }
    }

    /// Whether a number is taken.
    pub fn has(&self, number: u64) -> bool {
        self.taken.contains(&number)
    }

    /// Takes any number.
    pub fn take_any(&mut self) -> Result<u64, Refused> {
        let number = pick(self.first, self.last, |number| !self.taken.contains(&number)).ok_or(Refused::Full)?;
        self.taken.insert(number);
        Ok(number)
    }

    /// Gives a number back.
    pub fn release(&mut self, number: u64) {
        self.taken.remove(&number);
    }
}

/// A free number: a random one above the static band, or else any; none of a range that ends before it begins.
pub fn pick(first: u64, last: u64, is_free: impl Fn(u64) -> bool) -> Option<u64> {
    let size = last.checked_sub(first)? + 1;
    let band = if size <= STATIC_MIN { 0 } else { (size / STATIC_STEP).clamp(STATIC_MIN, STATIC_MAX).min(size / 2) };
    let from = first + band;
    let mut random = rand::rng();
    let drawn = (0..TRIES).map(|_| random.random_range(from..=last)).find(|number| is_free(*number));
    drawn.or_else(|| (from..=last).chain(first..from).find(|number| is_free(*number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_taken_once() {
        let mut pool = Pool::new(10, 12);
        assert_eq!(pool.take(9), Err(Refused::OutOfRange));
        assert_eq!((pool.take(10), pool.take(10)), (Ok(()), Err(Refused::Taken)));
        let mut rest = [pool.take_any().expect("free"), pool.take_any().expect("free")];
        rest.sort();
        assert_eq!((rest, pool.take_any()), ([11, 12], Err(Refused::Full)));
        pool.release(11);
        assert_eq!(pool.take_any(), Ok(11));
    }

    #[test]
    fn the_static_band_is_left_alone() {
        let mut pool = Pool::new(0, 65533);
        assert!((0..200).all(|_| pool.take_any().is_ok_and(|n| n >= 256)));
    }
}
