//! Instructions in user space per connection: `cargo bench -p benches --bench instructions [-- --quick|--json]`.
//!
//! Exact: valgrind's callgrind counts them, in a child process per figure, from a wait to the close of the connections that
//! it reported. The bound is on the difference to a hand-written loop that makes the same system calls (`tests/real/acceptors/costs`), with
//! a gate. No clock is involved, so this bench fails when the bound is exceeded. Without valgrind it is skipped.
//!
//! To see where they are spent: with `KEEP_PROFILES=1` and `CARGO_PROFILE_BENCH_DEBUG=1` the profiles stay in the directory
//! of temporary files, for callgrind_annotate.

#[path = "../engines/mod.rs"]
mod engines;

mod callgrind;

use std::fmt;
use std::process::ExitCode;

use engines::{TRIGGERS, Variant, net};
use epoll_acceptor::Trigger;

/// The most instructions per connection above the hand-written loop, with a gate.
const BOUND: u64 = 250;
const BURSTS: [usize; 4] = [1, 4, 32, 512];

/// What a child runs.
#[derive(Clone, Copy, Debug)]
struct Case {
    variant: Variant,
    trigger: Trigger,
    burst: usize,
}

impl Case {
    /// Whole periods of the acceptor's prediction.
    fn rounds(self) -> usize {
        if self.burst == 1 { 4 * engines::LONE_PERIOD } else { 1024_usize.div_ceil(self.burst) }
    }

    /// Enough for the prediction to settle; ends at the beginning of a period.
    fn warm_up(self) -> usize {
        if self.burst == 1 { 120 } else { 8 }
    }

    fn name(self) -> String {
        format!("{}/{}/{}", self.trigger, self.variant.name(), self.burst)
    }

    fn from_name(name: &str) -> Option<Self> {
        let mut words = name.split('/');
        let trigger = words.next()?.parse().ok()?;
        Some(Self {
            variant: Variant::from_name(words.next()?)?,
            trigger,
            burst: words.next()?.parse().ok()?,
        })
    }

    /// The main function of the child.
    fn run(self) {
        let listener = net::listen();
        let address = listener.local_addr().expect("an address");
        let mut engine = engines::boxed(self.variant, self.trigger, self.burst, listener);
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
    if let Some(case) = std::env::var(callgrind::CASE).ok().as_deref().and_then(Case::from_name) {
        case.run();
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
        println!(" trigger  burst   by hand   no gate      gate      more");
    }
    let rows = TRIGGERS.into_iter().flat_map(|trigger| bursts.iter().map(move |burst| (trigger, *burst)));
    let mut holds = true;
    for (trigger, burst) in rows {
        let row = Row::measure(trigger, burst);
        holds &= row.holds();
        if has("--json") { println!("{}", row.json(&valgrind)) } else { println!("{row}") }
    }
    if holds {
        return ExitCode::SUCCESS;
    }
    eprintln!("FAILED: a connection costs over {BOUND} instructions more than the hand-written loop");
    ExitCode::FAILURE
}

/// Instructions per connection.
struct Row {
    trigger: Trigger,
    burst: usize,
    by_hand: u64,
    ungated: u64,
    gated: u64,
}

impl Row {
    fn measure(trigger: Trigger, burst: usize) -> Self {
        let [by_hand, ungated, gated] = Variant::ALL.map(|variant| {
            let case = Case { variant, trigger, burst };
            let connections = u64::try_from(case.rounds() * burst).expect("a small number");
            callgrind::instructions(&case.name(), "*::counted").div_ceil(connections)
        });
        Self { trigger, burst, by_hand, ungated, gated }
    }

    fn more(&self) -> u64 {
        self.gated.max(self.ungated).saturating_sub(self.by_hand)
    }

    fn holds(&self) -> bool {
        self.more() <= BOUND
    }

    fn json(&self, valgrind: &str) -> serde_json::Value {
        serde_json::json!({
            "bench": "instructions",
            "valgrind": valgrind,
            "strategy": self.trigger.to_string(),
            "burst": self.burst,
            "by_hand": self.by_hand,
            "free": self.ungated,
            "gated": self.gated,
            "more": self.more(),
            "bound": BOUND,
            "holds": self.holds(),
        })
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trigger, burst, by_hand, ungated, gated } = self;
        let verdict = if self.holds() { "" } else { "  EXCEEDED" };
        let more = self.more();
        write!(f, "{trigger:>8} {burst:>6} {by_hand:>9} {ungated:>9} {gated:>9} {more:>9}{verdict}")
    }
}
