//! Which processes accept connections at a listener, of all that have it open.

use super::thread_sampler::ThreadSampler;
use crate::probe::{Holder, Registration};

/// Returns the processes that accept: those that watch the listener or block in accept, or else all that have
/// it open, except supervisors (parents of other such processes). A stopped process, unless a supervisor, is
/// always included.
pub(crate) fn accepting(
    holders: &[Holder],
    registrations: &[Registration],
    sampler: &ThreadSampler,
) -> Vec<i32> {
    let mut pids: Vec<i32> = holders.iter().map(|holder| holder.pid).collect();
    pids.sort_unstable();
    pids.dedup();
    let watches =
        |pid: i32| registrations.iter().any(|one| one.pid == pid) || sampler.accepts_on(pid, holders);
    let any_watches = pids.iter().any(|pid| watches(*pid));
    let is_worker =
        |pid: i32| watches(pid) || (!sampler.is_supervisor(pid) && (!any_watches || sampler.is_stopped(pid)));
    let workers: Vec<i32> = pids.iter().copied().filter(|pid| is_worker(*pid)).collect();
    if workers.is_empty() { pids } else { workers }
}
