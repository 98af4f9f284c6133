//! How many seats a priority level wanted over the last while.

/// Weight of the past in the smoothed demand, per adjustment.
const SMOOTHING: f64 = 0.977;

/// Integrates seats over time, and keeps what borrowing needs of it.
#[derive(Clone, Debug, Default)]
pub struct Demand {
    last: f64,
    seats: f64,
    max: f64,
    elapsed: f64,
    /// Seats × seconds, and seats² × seconds.
    area: f64,
    squares: f64,
    /// What the last period was.
    pub seen: Seen,
}

/// The demand of a period that is over.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seen {
    /// The most seats wanted at once.
    pub high_watermark: u64,
    /// Mean.
    pub average: f64,
    /// Standard deviation.
    pub deviation: f64,
    /// Mean and deviation, falling slowly.
    pub smoothed: f64,
}

impl Demand {
    /// Begins at a time, with no demand.
    pub fn new(now: f64) -> Self {
        Self { last: now, ..Self::default() }
    }

    /// From now on so many seats are wanted.
    pub fn set(&mut self, now: f64, seats: u64) {
        self.advance(now);
        self.seats = seats as f64;
        self.max = self.max.max(self.seats);
    }

    /// Ends a period and begins the next.
    pub fn turn(&mut self, now: f64) {
        self.advance(now);
        self.seen.high_watermark = self.max.round() as u64;
        if self.elapsed > 0.0 {
            let average = self.area / self.elapsed;
            let deviation = (self.squares / self.elapsed - average * average).max(0.0).sqrt();
            let envelope = average + deviation;
            let smoothed = envelope.max(SMOOTHING * self.seen.smoothed + (1.0 - SMOOTHING) * envelope);
            self.seen = Seen { average, deviation, smoothed, ..self.seen };
        }
        (self.elapsed, self.area, self.squares, self.max) = (0.0, 0.0, 0.0, self.seats);
    }

    fn advance(&mut self, now: f64) {
        let passed = (now - self.last).max(0.0);
        self.last = now;
        self.elapsed += passed;
        self.area += self.seats * passed;
        self.squares += self.seats * self.seats * passed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_summed_up() {
        let mut demand = Demand::new(0.0);
        demand.set(0.0, 4);
        demand.set(5.0, 0);
        demand.turn(10.0);
        let seen = demand.seen;
        assert_eq!((seen.high_watermark, seen.average, seen.deviation, seen.smoothed), (4, 2.0, 2.0, 4.0));
        demand.turn(20.0);
        assert_eq!((demand.seen.high_watermark, demand.seen.average), (0, 0.0));
        assert!((demand.seen.smoothed - 4.0 * SMOOTHING).abs() < 1e-9, "it falls slowly");
    }
}
