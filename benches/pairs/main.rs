//! Accepting, as ratios inside one process: `cargo bench -p benches --bench pairs`.
//!
//! # What is timed
//!
//! `k` connections are queued on a TCP listener on loopback. One thread wakes, accepts them all and is ready to wait again:
//! the nanoseconds of that, per connection. The connects before it and the closes after it are not timed, and one thread
//! does everything in turn, so that the figures contain the accept path alone.
//!
//! **Ready to wait again**, for every engine alike: timed is everything from just before the call that would have blocked
//! without these connections to just before the next call that would block. So a loop that accepts until EAGAIN pays for
//! the EAGAIN; one that accepts one connection per wake-up pays for `k` waits; a one-shot registration for its re-arm;
//! tokio for the last attempt, without which it does not know that it must wait. What the blocking wait does before it
//! sleeps (it drops items that are not ready any more) is in no engine's figures, because it ends in the next round's
//! wake-up.
//!
//! With a gate, permits are held until the burst is delivered, and released inside the timed part.
//!
//! Every engine has a listener of its own. Each round asserts that all `k` were accepted; each quarter of a block asserts
//! once that the sockets are non-blocking and close-on-exec, where the engine promises it.
//!
//! # Method
//!
//! On a shared machine a time is meaningless, and so is a ratio without its noise. So two engines are compared in blocks of
//! four (reference, engine, engine, reference: a drift cancels out), all pairs in turn, until the time is up. The figure is
//! the median of the blocks' ratios, with a 95 % confidence interval by order statistics. A block begins, untimed, with a
//! burst of 64 and 40 connections in its own bursts, so that an acceptor that predicts from the past begins every block
//! with the same past. The sequences measure the cost of learning. The reference is also compared with itself: its
//! deviation from 1.00 is noise. A quarter of a block in which the thread lost its CPU during the timed part is repeated.
//!
//! Reading the clock is timed as well (some 30 ns per round), which pulls every ratio a little towards 1.

#[path = "../engines/mod.rs"]
mod engines;

mod measure;
mod options;
mod ours;
mod peers;
mod plans;
mod report;
mod uring;
mod verdict;
mod work;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Instant;

use crate::engines::abba::Block;
use crate::engines::machine;
use crate::engines::stats::Median;
use crate::measure::Bench;
use crate::options::{HELP, Options};
use crate::report::Row;
use crate::work::Pair;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("pairs: {error}");
            ExitCode::from(2)
        }
    }
}

/// Returns whether the bounds hold, if `--verdict` was given.
fn run() -> Result<bool, Box<dyn Error>> {
    let mut out = io::stdout().lock();
    let Some(options) = Options::from_command_line()? else {
        out.write_all(HELP.as_bytes())?;
        return Ok(true);
    };
    let plans = plans::all();
    if options.list {
        for plan in &plans {
            writeln!(out, "{}", plan.name)?;
        }
        return Ok(true);
    }
    let machine = machine::describe();
    eprintln!("{machine}");
    let bench = Bench::start(&plans, |name, error| eprintln!("SKIPPED {name}: {error}"));
    let mut pairs = work::pairs(&plans, &options.bursts, options.connections);
    pairs.retain(|pair| {
        bench.has(pair.engine) && bench.has(pair.reference) && options.wants(pair.engine, pair.reference)
    });
    if options.quick {
        pairs.iter_mut().for_each(|pair| pair.work.before.clear());
    }
    let rows = measure(&bench, pairs, &options);
    if options.json {
        report::json(&rows, &machine, &mut out)?;
        return Ok(!options.verdict || verdict::print(&rows, &mut io::stderr())?);
    }
    report::tables(&rows, &mut out)?;
    Ok(!options.verdict || verdict::print(&rows, &mut out)?)
}

/// Measures a block of each pair in turn, until the time is up.
fn measure(bench: &Bench, pairs: Vec<Pair>, options: &Options) -> Vec<Row> {
    let mut blocks: Vec<Vec<Block>> = vec![Vec::new(); pairs.len()];
    let start = Instant::now();
    for round in 1.. {
        for (pair, blocks) in pairs.iter().zip(&mut blocks) {
            if blocks.is_empty() || start.elapsed() < options.time {
                blocks.push(bench.block(pair));
            }
        }
        eprintln!("round {round}: {} pairs, {:.0} s", pairs.len(), start.elapsed().as_secs_f64());
        if start.elapsed() >= options.time {
            break;
        }
    }
    pairs.into_iter().zip(blocks).map(|(pair, blocks)| row(pair, &blocks)).collect()
}

fn row(pair: Pair, blocks: &[Block]) -> Row {
    Row {
        pair,
        ratio: Median::of(blocks.iter().map(|block| block.ratio()).collect()),
        ns: Median::of(blocks.iter().map(|block| block.point).collect()).value,
        blocks: blocks.len(),
    }
}
