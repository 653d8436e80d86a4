//! Instructions in user space per connection: `cargo bench --bench instructions [-- --quick|--json]`.
//!
//! Exact: valgrind's callgrind counts them, in a child process for each figure, from a wait to the close of what it
//! brought. The bound is on the difference to a loop by hand that makes the same system calls (`tests/costs`), the gate
//! included. No clock is involved, so this bench fails when the bound is passed. Without valgrind it says that it was
//! skipped.
//!
//! Where they go: with `KEEP_PROFILES=1` and `CARGO_PROFILE_BENCH_DEBUG=1` the profiles stay in the directory for
//! temporary files, for callgrind_annotate.

#[path = "../engines/mod.rs"]
mod engines;

mod callgrind;

use std::fmt;
use std::process::ExitCode;

use engines::{Strategy, Who, net};

/// Instructions that a connection may cost more than by hand, gate included.
const BOUND: u64 = 250;
const BURSTS: [usize; 4] = [1, 4, 32, 512];

/// One row: who, how, and how many are queued at once.
#[derive(Clone, Copy, Debug)]
struct Setup {
    who: Who,
    strategy: Strategy,
    burst: usize,
}

impl Setup {
    /// Whole periods of what an acceptor does, which repeats itself.
    fn rounds(self) -> usize {
        if self.burst == 1 { 4 * engines::LONE_PERIOD } else { 1024_usize.div_ceil(self.burst) }
    }

    /// Enough for the acceptor to know what to expect, and at the beginning of a period.
    fn warm_up(self) -> usize {
        if self.burst == 1 { 120 } else { 8 }
    }

    fn name(self) -> String {
        format!("{}/{}/{}", self.strategy.name(), self.who.name(), self.burst)
    }

    fn from_name(name: &str) -> Option<Self> {
        let mut words = name.split('/');
        let strategy = Strategy::from_name(words.next()?)?;
        Some(Self { who: Who::from_name(words.next()?)?, strategy, burst: words.next()?.parse().ok()? })
    }

    /// What the child does.
    fn play(self) {
        let listener = net::listen();
        let address = listener.local_addr().expect("an address");
        let mut engine = engines::boxed(self.who, self.strategy, self.burst, listener);
        let mut clients = Vec::with_capacity(self.burst);
        for round in 0..self.warm_up() + self.rounds() {
            clients.extend((0..self.burst).map(|_| net::connect(&address)));
            if round < self.warm_up() {
                engine.take(self.burst);
                engine.close();
            } else {
                counted(&mut *engine, self.burst);
            }
            clients.clear();
        }
    }
}

/// Callgrind counts from the entry to the exit of this function.
#[inline(never)]
fn counted(engine: &mut dyn engines::Engine, burst: usize) {
    engine.take(burst);
    engine.close();
}

fn main() -> ExitCode {
    if let Some(case) = std::env::var(callgrind::CASE).ok().as_deref().and_then(Setup::from_name) {
        case.play();
        return ExitCode::SUCCESS;
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |wanted: &str| args.iter().any(|arg| arg == wanted);
    let valgrind = match callgrind::version() {
        Ok(version) => version,
        Err(why) => {
            eprintln!("SKIPPED: {why}");
            return ExitCode::SUCCESS;
        }
    };
    let bursts: &[usize] = if has("--quick") { &[1, 32] } else { &BURSTS };
    if !has("--json") {
        println!("instructions per connection, from the wait to the close ({valgrind})");
        println!("strategy  burst   by hand      free     gated      more");
    }
    let rows =
        Strategy::ALL.into_iter().flat_map(|strategy| bursts.iter().map(move |burst| (strategy, *burst)));
    let mut holds = true;
    for (strategy, burst) in rows {
        let row = Row::measure(strategy, burst);
        holds &= row.holds();
        if has("--json") { println!("{}", row.json(&valgrind)) } else { println!("{row}") }
    }
    if holds {
        return ExitCode::SUCCESS;
    }
    eprintln!("FAILED: a connection costs more than {BOUND} instructions more than by hand");
    ExitCode::FAILURE
}

/// Instructions per connection.
struct Row {
    strategy: Strategy,
    burst: usize,
    by_hand: u64,
    free: u64,
    gated: u64,
}

impl Row {
    fn measure(strategy: Strategy, burst: usize) -> Self {
        let [by_hand, free, gated] = Who::ALL.map(|who| {
            let case = Setup { who, strategy, burst };
            let connections = u64::try_from(case.rounds() * burst).expect("a small number");
            callgrind::instructions(&case.name(), "*::counted").div_ceil(connections)
        });
        Self { strategy, burst, by_hand, free, gated }
    }

    fn more(&self) -> u64 {
        self.gated.max(self.free).saturating_sub(self.by_hand)
    }

    fn holds(&self) -> bool {
        self.more() <= BOUND
    }

    fn json(&self, valgrind: &str) -> serde_json::Value {
        serde_json::json!({
            "bench": "instructions",
            "valgrind": valgrind,
            "strategy": self.strategy.name(),
            "burst": self.burst,
            "by_hand": self.by_hand,
            "free": self.free,
            "gated": self.gated,
            "more": self.more(),
            "bound": BOUND,
            "holds": self.holds(),
        })
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { strategy, burst, by_hand, free, gated } = self;
        let verdict = if self.holds() { "" } else { "  MORE THAN ALLOWED" };
        let (name, more) = (strategy.name(), self.more());
        write!(f, "{name:>8} {burst:>6} {by_hand:>9} {free:>9} {gated:>9} {more:>9}{verdict}")
    }
}
