//! The bursts, and which engine is compared with which.

use crate::plans::{Plan, REFERENCE, URING};

/// Bursts to accept one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Work {
    /// The burst; of a sequence the longest.
    pub(crate) burst: usize,
    /// The name of a sequence of different bursts.
    pub(crate) sequence: Option<&'static str>,
    pub(crate) bursts: Vec<usize>,
    /// Accepted before, untimed, so that every block begins in the same state.
    pub(crate) before: Vec<usize>,
}

/// Two engines on the same work.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) engine: &'static str,
    pub(crate) reference: &'static str,
    pub(crate) work: Work,
}

/// The bursts that are measured by default.
pub(crate) const BURSTS: [usize; 5] = [1, 2, 4, 32, 512];
/// After this many lone connections, an acceptor predicts another lone one.
const LONE: usize = 40;

impl Work {
    /// Repeats one burst, for about `connections` in all.
    pub(crate) fn constant(burst: usize, connections: usize) -> Self {
        let before = [vec![64], vec![burst; LONE.div_ceil(burst)]].concat();
        let rounds = connections.div_ceil(burst);
        Self { burst, sequence: None, bursts: vec![burst; rounds], before }
    }

    /// Repeats a pattern, after `before`.
    fn sequence(name: &'static str, before: &[usize], pattern: &[usize], connections: usize) -> Self {
        let once: usize = pattern.iter().sum();
        let burst = pattern.iter().copied().max().unwrap_or(1);
        let before = [before, pattern].concat();
        Self { burst, sequence: Some(name), bursts: pattern.repeat(connections.div_ceil(once)), before }
    }

    pub(crate) fn connections(&self) -> usize {
        self.bursts.iter().sum()
    }
}

impl Pair {
    /// Returns whether the pair belongs to the table of all engines against the reference.
    pub(crate) fn is_of_the_table(&self) -> bool {
        self.reference == REFERENCE && self.work.sequence.is_none()
    }
}

/// Returns every comparison.
pub(crate) fn pairs(plans: &[Plan], bursts: &[usize], connections: usize) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for &burst in bursts {
        for plan in plans.iter().filter(|plan| plan.name != REFERENCE) {
            pairs.push(Pair {
                engine: plan.name,
                reference: REFERENCE,
                work: Work::constant(burst, connections),
            });
        }
    }
    pairs.extend(direct(bursts, connections));
    pairs.extend(adversarial(connections));
    pairs
}

/// This crate against the same system calls, hand-written, and against each peer.
fn direct(bursts: &[usize], connections: usize) -> Vec<Pair> {
    let rows: [(&str, &str, &[usize]); 18] = [
        ("crate/level", "libc/level-guess", bursts),
        ("crate/level+gate", "libc/level-guess", bursts),
        // A lone connection is accepted alone, a burst is counted first; two connections may be either.
        ("crate/level", "libc/level-one", &[1, 2]),
        ("crate/level", "libc/level-depth", &[2, 4, 32, 512]),
        ("crate/level+gate", "libc/level-one", &[1, 2]),
        ("crate/level+gate", "libc/level-depth", &[2, 4, 32, 512]),
        ("crate/edge", "libc/edge-mod-one", &[1, 2]),
        ("crate/edge", "libc/edge-mod-depth", &[2, 4, 32, 512]),
        ("crate/edge+gate", "libc/edge-mod-one", &[1, 2]),
        ("crate/edge+gate", "libc/edge-mod-depth", &[2, 4, 32, 512]),
        ("crate/level", "tokio", &[1, 4, 32]),
        ("crate/level/tokio", "tokio", &[1, 4, 32]),
        ("crate/edge/tokio", "tokio", &[1, 4, 32]),
        ("crate/level/tokio/std", "tokio/async-fd", &[1, 4, 32]),
        ("crate/level", "mio", &[1]),
        ("crate/level", "polling", &[1]),
        ("crate/level", "polling/until-would-block", &[1]),
        ("crate/level", URING, &[1, 4, 32]),
    ];
    let mut pairs = Vec::new();
    for (engine, reference, of) in rows {
        for &burst in of.iter().filter(|burst| bursts.contains(burst)) {
            pairs.push(Pair { engine, reference, work: Work::constant(burst, connections) });
        }
    }
    pairs
}

/// Sequences that mislead a prediction from the past, against the two loops without one. With the hand-written loop that
/// predicts as well, which shows the cost of the prediction alone.
fn adversarial(connections: usize) -> Vec<Pair> {
    let lone = [1; LONE];
    let random = random(24, 64);
    let often = [[1; 30].as_slice(), &[64]].concat();
    let sawtooth: Vec<usize> = (1..=12).chain((1..12).rev()).collect();
    let sequences: [(&str, &[usize], &[usize]); 10] = [
        ("1,64", &[], &[1, 64]),
        ("random 1..64", &[], &random),
        ("1,1,1,64", &[], &[1, 1, 1, 64]),
        ("1 x 30,64", &[], &often),
        ("1,3", &[], &[1, 3]),
        ("1,1,1,8", &[], &[1, 1, 1, 8]),
        ("2 after lone", &lone, &[2]),
        ("2 after bursts", &[64], &[2]),
        ("1,2,4,8,16,32,64", &[], &[1, 2, 4, 8, 16, 32, 64]),
        ("sawtooth 1..12", &[], &sawtooth),
    ];
    let mut pairs = Vec::new();
    for (name, before, pattern) in sequences {
        for engine in ["crate/level", "libc/level-guess"] {
            for reference in ["libc/level-one", "libc/level-depth"] {
                let work = Work::sequence(name, before, pattern, connections);
                pairs.push(Pair { engine, reference, work });
            }
        }
    }
    pairs
}

/// Marsaglia's xorshift, from a fixed seed.
fn random(count: usize, most: usize) -> Vec<usize> {
    let mut state = 0x2545_f491_4f6c_dd1d_usize;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        1 + state % most
    })
    .take(count)
    .collect()
}
