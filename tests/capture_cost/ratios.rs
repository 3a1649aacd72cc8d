//! What was found beside what it is compared with: the median of the ratios, and how far chance may have moved it.

use std::fmt;

/// Ratios of one side to the other, one for each run. A process is a little faster or slower than another of the same program
/// for as long as it lives, so the runs, each of which has fresh processes, are what chance draws from.
#[derive(Clone, Debug)]
pub(super) struct Ratios(Vec<f64>);

/// Of so many drawings the interval is made.
const DRAWINGS: usize = 2000;

impl Ratios {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn add(&mut self, ratio: f64) {
        self.0.push(ratio);
    }

    /// Where the median lies in 95 of 100 drawings of as many runs (bootstrap).
    fn interval(&self) -> (f64, f64) {
        // xorshift64: it only has to be even, and the same every time.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut drawn = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let place = (state >> 33) % u64::try_from(self.0.len()).unwrap();
            self.0[usize::try_from(place).unwrap()]
        };
        let drawing = |_| median((0..self.0.len()).map(|_| drawn()).collect());
        let mut medians: Vec<f64> = (0..DRAWINGS).map(drawing).collect();
        medians.sort_by(f64::total_cmp);
        (medians[DRAWINGS / 40], medians[DRAWINGS - 1 - DRAWINGS / 40])
    }
}

impl fmt::Display for Ratios {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |ratio: f64| (ratio - 1.0) * 100.0;
        let (low, high) = self.interval();
        let middle = median(self.0.clone());
        write!(f, "{:+.2} % ({:+.2} to {:+.2})", percent(middle), percent(low), percent(high))
    }
}

pub(super) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
