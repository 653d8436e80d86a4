//! What can be observed of a server from its port and its thread alone.
#![allow(unsafe_code)]

use std::error::Error;
use std::io;
use std::os::unix::thread::JoinHandleExt;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use procfs::net::TcpState;

/// The sockets of one port in `/proc/net/tcp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sockets {
    /// Connections in the accept queue: `rx_queue` of the row in state LISTEN; Recv-Q of `ss -lt`.
    pub(crate) queued: u32,
    /// Rows in state CLOSE_WAIT with inode 0: the client has closed, and no process has the socket. `lsof` does not
    /// show them.
    pub(crate) close_wait_unowned: usize,
}

/// Reads `/proc/net/tcp`.
pub(crate) fn sockets(port: u16) -> Result<Sockets, Box<dyn Error>> {
    let mut sockets = Sockets { queued: 0, close_wait_unowned: 0 };
    for row in procfs::net::tcp()?.into_iter().filter(|row| row.local_address.port() == port) {
        match row.state {
            TcpState::Listen => sockets.queued = row.rx_queue,
            TcpState::CloseWait if row.inode == 0 => sockets.close_wait_unowned += 1,
            _ => {}
        }
    }
    Ok(sockets)
}

/// Returns the processor time that a thread has used so far.
pub(crate) fn cpu_time<T>(thread: &JoinHandle<T>) -> io::Result<Duration> {
    let mut clock = 0;
    // SAFETY: pthread_getcpuclockid(3) takes the id of a thread that exists. The handle proves that this one was neither
    // joined nor detached, so its id is valid even after it has ended (then: ESRCH).
    let error = unsafe { libc::pthread_getcpuclockid(thread.as_pthread_t(), &raw mut clock) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    Ok(clock_gettime(ClockId::from_raw(clock))?.into())
}
