//! Medians and quartiles, which assume nothing about the distribution of the noise.

/// Returns a quartile: 2 is the median.
pub fn quarter(values: &mut [f64], quarters: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() * quarters / 4]
}

/// Returns the median; of an even number of values the upper one.
pub fn median(values: &mut [f64]) -> f64 {
    quarter(values, 2)
}

/// A median and its 95 % confidence interval, by order statistics.
#[derive(Clone, Copy, Debug)]
pub struct Median {
    pub value: f64,
    pub low: f64,
    pub high: f64,
}

impl Median {
    /// Takes at least one value. With fewer than six, the interval is the whole range, with less than 95 % confidence.
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let last = values.len() - 1;
        let skipped = skipped(values.len());
        Self {
            value: f64::midpoint(values[last / 2], values[last.div_ceil(2)]),
            low: values[skipped],
            high: values[last - skipped],
        }
    }
}

/// Returns how many of `count` sorted values to leave out at each end. The median lies below the `k`-th value with the
/// probability that fewer than `k` of `count` coin tosses are heads.
fn skipped(count: usize) -> usize {
    const TAIL: f64 = 0.025;
    let tosses = u32::try_from(count).expect("fewer than 2^32 blocks");
    // In logarithms, which do not underflow for thousands of tosses.
    let mut term = f64::from(tosses) * 0.5_f64.ln();
    let mut below = term.exp();
    let mut skipped: usize = 0;
    for heads in 0..tosses {
        if below > TAIL {
            break;
        }
        skipped += 1;
        term += (f64::from(tosses - heads) / f64::from(heads + 1)).ln();
        below += term.exp();
    }
    skipped.saturating_sub(1).min(count.saturating_sub(1) / 2)
}
