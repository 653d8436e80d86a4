//! The machine of a measurement.

use std::fs;

/// Returns kernel, CPU and cores, in one line.
pub fn describe() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find(|line| line.starts_with("model name") || line.starts_with("CPU part"));
    let cpu = model.and_then(|line| line.split_once(':')).map_or("unknown CPU", |(_, name)| name.trim());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("Linux {}, {cpu}, {cores} cores", kernel.trim())
}
