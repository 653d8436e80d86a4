//! Accepting, as ratios inside one process: `cargo bench --bench pairs`.
//!
//! # What is timed
//!
//! `k` connections are queued on a TCP listener on loopback. One thread, asleep until then, wakes, takes them all and is
//! ready to sleep again; the nanoseconds of that, for each connection. Connecting before it and closing after it are not
//! timed, and the same thread does everything in turn, so that nothing but the accept path is in the figures.
//!
//! **Ready to sleep again**, for every engine alike: timed is everything from just before the call that would have
//! blocked, had nobody connected, to just before the next call that would block. So a loop that accepts until EAGAIN
//! pays for the EAGAIN; one that takes one connection a wake-up pays for `k` waits; a one-shot registration for its
//! re-arming; tokio, which has to try once more before it knows that it may sleep, for that attempt. What the blocking
//! wait itself does before it sleeps (it forgets items whose readiness has gone) is in no engine's figures, since it
//! ends in the next round's wake-up.
//!
//! With a gate, permits are held until the burst is delivered, and are given back inside the timed part.
//!
//! Every engine has a listener of its own. That all `k` were taken is asserted each time; that the sockets are
//! non-blocking and close-on-exec, where the engine says so, once in each quarter of a block.
//!
//! # Which figures count
//!
//! On a shared machine a time means nothing, and a ratio only beside its noise. So two engines are compared in blocks
//! of four (reference, engine, engine, reference: a drift cancels), all pairs in turn, over and over, until the time is
//! up. The figure is the median of the blocks' ratios, with a 95 % confidence interval by order statistics. A block
//! begins, untimed, with a burst of 64 and 40 connections in its own bursts, so that an acceptor that guesses from the
//! past begins every block with the same past, and one that it had time to learn from. What learning costs is measured
//! by the sequences. The reference against itself stands beside: what that is off 1.00 is
//! noise. A quarter of a block in which the thread lost its CPU to another process, in what was timed, is done again.
//!
//! The clock is read inside what is timed (some 30 ns a round), which pulls every ratio towards 1 a little.

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

/// Whether what was promised holds, if that was asked for.
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

/// All pairs in turn, a block each, until the time is up.
fn measure(bench: &Bench, pairs: Vec<Pair>, options: &Options) -> Vec<Row> {
    let mut blocks: Vec<Vec<Block>> = vec![Vec::new(); pairs.len()];
    let start = Instant::now();
    for turn in 1.. {
        for (pair, blocks) in pairs.iter().zip(&mut blocks) {
            if blocks.is_empty() || start.elapsed() < options.time {
                blocks.push(bench.block(pair));
            }
        }
        eprintln!("turn {turn}: {} pairs, {:.0} s", pairs.len(), start.elapsed().as_secs_f64());
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
