//! What can be observed of a server from its port and its thread alone.
#![allow(unsafe_code)]

use std::fs;
use std::io;
use std::os::unix::thread::JoinHandleExt;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

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
pub(crate) fn sockets(port: u16) -> io::Result<Sockets> {
    const LISTEN: u8 = 10;
    const CLOSE_WAIT: u8 = 8;
    let mut sockets = Sockets { queued: 0, close_wait_unowned: 0 };
    // A busy machine has thousands of rows.
    let local_port = format!(":{port:04X} ");
    let table = fs::read_to_string("/proc/net/tcp")?;
    let rows = table.lines().filter(|line| line.contains(&local_port)).filter_map(parse_row);
    for row in rows.filter(|row| row.local_port == port) {
        match row.state {
            LISTEN => sockets.queued = row.rx_queue,
            CLOSE_WAIT if row.inode == 0 => sockets.close_wait_unowned += 1,
            _ => {}
        }
    }
    Ok(sockets)
}

struct Row {
    local_port: u16,
    state: u8,
    rx_queue: u32,
    inode: u64,
}

/// `sl: local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode`: proc_net_tcp in the
/// kernel's documentation. `None` for the heading.
fn parse_row(line: &str) -> Option<Row> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let after_colon = |n: usize| Some(fields.get(n)?.split_once(':')?.1);
    Some(Row {
        local_port: u16::from_str_radix(after_colon(1)?, 16).ok()?,
        state: u8::from_str_radix(fields.get(3)?, 16).ok()?,
        rx_queue: u32::from_str_radix(after_colon(4)?, 16).ok()?,
        inode: fields.get(9)?.parse().ok()?,
    })
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
