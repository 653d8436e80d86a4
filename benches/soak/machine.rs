//! The resources of this process and this machine.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use procfs::Current;
use procfs::process::Process;

/// Descriptors for other things than connections.
const OTHERS: u64 = 100;

/// Raises the soft limit of descriptors to the hard one; returns it.
pub(crate) fn raise_descriptor_limit() -> io::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

/// Returns how many connections one process can hold here, up to 20,000.
pub(crate) fn most_connections() -> io::Result<u32> {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(u32::try_from(soft.saturating_sub(OTHERS)).unwrap_or(u32::MAX).clamp(1, 20_000))
}

/// Returns how many descriptors this process has open.
pub(crate) fn descriptors() -> io::Result<u64> {
    // One of them belongs to the directory that is read.
    Ok(fs::read_dir("/proc/self/fd")?.count() as u64 - 1)
}

/// Returns how many sockets and epolls this process has open.
pub(crate) fn sockets_and_epolls() -> io::Result<u64> {
    let targets = fs::read_dir("/proc/self/fd")?.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let of_ours = |target: &std::path::PathBuf| {
        let target = target.to_string_lossy();
        target.starts_with("socket:") || target.starts_with("anon_inode:")
    };
    Ok(targets.filter(of_ours).count() as u64)
}

/// Returns the resident memory of this process (`VmRSS`), in KiB.
pub(crate) fn resident_kib() -> io::Result<u64> {
    let status = Process::myself().and_then(|process| process.status()).map_err(io::Error::other)?;
    Ok(status.vmrss.unwrap_or(0))
}

/// Describes this machine, for reports.
pub(crate) fn describe() -> String {
    let processor = procfs::CpuInfo::current().ok();
    let name = processor.as_ref().and_then(|info| info.model_name(0)).unwrap_or("an unknown processor");
    let cores = processor.as_ref().map_or(1, procfs::CpuInfo::num_cores);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let user = if nix::unistd::geteuid().is_root() { "root" } else { "an ordinary user" };
    let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(_, hard)| hard);
    format!(
        "Linux {}, {name}, {cores} cores, {descriptors} descriptors per process, as {user}",
        kernel.trim()
    )
}

/// Exhausts the descriptors of this process until it is dropped: only those that other threads close become available.
pub(crate) struct Exhaustion {
    soft: u64,
    hard: u64,
    _fillers: Vec<OwnedFd>,
}

impl Exhaustion {
    /// Lowers the limit to the highest open descriptor, and fills the gaps below it.
    pub(crate) fn begin(any: impl AsFd) -> io::Result<Self> {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        let highest = fs::read_dir("/proc/self/fd")?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u64>().ok())
            .max()
            .unwrap_or(0);
        setrlimit(Resource::RLIMIT_NOFILE, (highest + 1).min(soft), hard)?;
        let fillers = std::iter::from_fn(|| any.as_fd().try_clone_to_owned().ok()).collect();
        Ok(Self { soft, hard, _fillers: fillers })
    }

    /// Lowers the limit below every open descriptor, so that not even closed ones become available.
    pub(crate) fn complete() -> io::Result<Self> {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        // The standard ones are open, and poll(2) fails for more descriptors than the limit.
        setrlimit(Resource::RLIMIT_NOFILE, 3, hard)?;
        Ok(Self { soft, hard, _fillers: Vec::new() })
    }
}

impl Drop for Exhaustion {
    fn drop(&mut self) {
        setrlimit(Resource::RLIMIT_NOFILE, self.soft, self.hard).expect("up to the hard limit is allowed");
    }
}
