//! The output: one line per way, number of workers and load.

use std::time::Duration;

use crate::clients::Load;
use crate::engines::machine;
use crate::engines::stats::median;
use crate::way::Way;
use crate::worker::{Stats, Usage};

pub(crate) struct Row {
    pub(crate) way: Way,
    pub(crate) workers: usize,
    pub(crate) load: Load,
    stats: Vec<Stats>,
    latencies: Vec<u64>,
    per_second: Vec<f64>,
    pub(crate) usage: Usage,
}

pub(crate) fn head() {
    println!(
        "{:34} {:>8} {:>17} {:>20} {:>19} {:>7}",
        "", "conns", "us to first byte", "per connection", "share", "cpu us"
    );
    let (ways, latencies) = ("load workers way                  ", "     p50      p99");
    println!("{ways} /second  {latencies}  wakes wasted sleeps  least   most  Jain  a conn");
}

impl Row {
    pub(crate) fn new(way: Way, workers: usize, load: Load) -> Self {
        Self {
            way,
            workers,
            load,
            stats: vec![Stats::default(); workers],
            latencies: Vec::new(),
            per_second: Vec::new(),
            usage: Usage::default(),
        }
    }

    pub(crate) fn add_round(&mut self, stats: &[Stats], latencies: Vec<u64>, time: Duration) {
        let accepted: u64 = stats.iter().map(|one| one.accepted).sum();
        assert_eq!(accepted, latencies.len() as u64, "every client is served once");
        for (sum, one) in self.stats.iter_mut().zip(stats) {
            sum.accepted += one.accepted;
            sum.wakes += one.wakes;
            sum.wasted += one.wasted;
        }
        self.per_second.push(latencies.len() as f64 / time.as_secs_f64());
        self.latencies.extend(latencies);
    }

    pub(crate) fn print(&mut self, json: bool) {
        self.latencies.sort_unstable();
        let at = |percent: usize| self.latencies[(self.latencies.len() - 1) * percent / 100] as f64 / 1e3;
        let (p50, p99) = (at(50), at(99));
        let per_second = median(&mut self.per_second);
        let shares: Vec<f64> = self.stats.iter().map(|one| one.accepted as f64).collect();
        let all: f64 = shares.iter().sum();
        let of_all = |pick: fn(f64, f64) -> f64| shares.iter().copied().reduce(pick).unwrap_or(0.0) / all;
        let (least, most) = (of_all(f64::min), of_all(f64::max));
        // Jain's fairness index: 1 if all shares are equal, 1/n if one worker has everything.
        let jain =
            all.powi(2) / (shares.len() as f64 * shares.iter().map(|share| share.powi(2)).sum::<f64>());
        let sum = |part: fn(&Stats) -> u64| self.stats.iter().map(part).sum::<u64>() as f64 / all;
        let (wakes, wasted) = (sum(|one| one.wakes), sum(|one| one.wasted));
        let cpu = self.usage.cpu.as_secs_f64() * 1e6 / all;
        let sleeps = self.usage.sleeps as f64 / all;
        let (load, workers, way) = (self.load.name(), self.workers, self.way.name());
        if json {
            let line = serde_json::json!({
                "bench": "workers", "way": way, "workers": workers, "load": load,
                "machine": machine::describe(), "clients": self.load.clients(), "connections": all,
                "per_second": per_second, "p50_us": p50, "p99_us": p99,
                "wakes": wakes, "wasted": wasted, "least": least, "most": most, "jain": jain, "cpu_us": cpu, "sleeps": sleeps,
            });
            println!("{line}");
            return;
        }
        println!(
            "{load} {workers:>7} {way:<21} {per_second:>8.0} {p50:>8.1} {p99:>8.1} {wakes:>6.2} {wasted:>6.2} \
             {sleeps:>6.2} {least:>6.2} {most:>6.2} {jain:>5.2} {cpu:>7.1}"
        );
    }
}
