//! Latencies: counts in buckets whose width grows with the value, so that a percentile is right to 2 %.

/// Buckets of one doubling.
const STEPS: u64 = 64;

/// Counts of nanoseconds.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Histogram {
    /// Without values.
    pub(crate) fn new() -> Histogram {
        Histogram {
            counts: vec![0; 64 * STEPS as usize],
            total: 0,
        }
    }

    /// Counts a value.
    pub(crate) fn add(&mut self, nanoseconds: u64) {
        self.counts[bucket(nanoseconds)] += 1;
        self.total += 1;
    }

    /// Milliseconds that this share of the values does not exceed; `None` without values.
    pub(crate) fn percentile_ms(&self, share: f64) -> Option<f64> {
        let wanted = ((self.total as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        let bucket = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        })?;
        Some(upper_end(bucket as u64) as f64 / 1e6)
    }
}

fn bucket(value: u64) -> usize {
    if value < STEPS {
        return value as usize;
    }
    let doublings = u64::from(value.ilog2() - STEPS.ilog2());
    ((doublings + 1) * STEPS + ((value >> doublings) - STEPS)) as usize
}

fn upper_end(bucket: u64) -> u64 {
    if bucket < STEPS {
        return bucket;
    }
    let doublings = bucket / STEPS - 1;
    ((bucket % STEPS + STEPS + 1) << doublings) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket() {
        for value in (0..200_000).chain([1 << 33, (1 << 40) + 12345]) {
            let end = upper_end(bucket(value) as u64);
            assert!(
                end >= value && end - value <= value / STEPS,
                "{value} {end}"
            );
        }
    }

    #[test]
    fn percentiles_are_the_values_at_their_ranks() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.percentile_ms(0.5), None);
        (1..=1000).for_each(|ms| histogram.add(ms * 1_000_000));
        for (share, ms) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let found = histogram.percentile_ms(share).unwrap();
            assert!((found - ms).abs() <= ms / 50.0, "{share}: {found}");
        }
    }
}
