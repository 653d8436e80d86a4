//! `sock_diag(7)`: the kernel's list of sockets, readable by every user.

use std::io::{self, ErrorKind};

use netlink_packet_core::{
    Emitable, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NlasIterator,
};
use netlink_packet_sock_diag::SOCK_DIAG_BY_FAMILY;
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr};

const HEADER: usize = 16;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// The maximum number of attempts at a dump.
const ATTEMPTS: usize = 4;
/// Twice the longest datagram of a dump. The kernel sizes its datagrams by the largest receive buffer it has
/// seen, and silently ends the dump at an entry that does not fit.
const RECV_BUFFER: usize = 64 * 1024;

/// A `NETLINK_SOCK_DIAG` socket.
#[derive(Debug)]
pub(crate) struct Diag {
    socket: Socket,
}

impl Diag {
    pub(crate) fn new() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket })
    }

    /// Requests all sockets that match and parses each entry.
    ///
    /// A dump that the kernel marks as interrupted may lack entries, so it is retried a few times.
    pub(crate) fn dump<T>(
        &self,
        request: &impl Emitable,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        for _ in 1..ATTEMPTS {
            let (found, complete) = self.dump_once(request, &read)?;
            if complete {
                return Ok(found);
            }
        }
        Ok(self.dump_once(request, &read)?.0)
    }

    fn dump_once<T>(
        &self,
        request: &impl Emitable,
        read: &impl Fn(&[u8]) -> Option<T>,
    ) -> io::Result<(Vec<T>, bool)> {
        self.send_request(request)?;
        let (mut found, mut complete) = (Vec::new(), true);
        let mut datagram = Vec::with_capacity(RECV_BUFFER);
        loop {
            datagram.clear();
            self.socket.recv(&mut datagram, 0)?;
            let (done, whole) = read_datagram(&datagram, |payload| found.extend(read(payload)))?;
            complete &= whole;
            if done {
                return Ok((found, complete));
            }
        }
    }

    fn send_request(&self, request: &impl Emitable) -> io::Result<()> {
        let length = HEADER + request.buffer_len();
        let mut packet = vec![0; length];
        let mut header = NetlinkBuffer::new(&mut packet[..]);
        header.set_length(u32::try_from(length).expect("a request is short"));
        header.set_message_type(SOCK_DIAG_BY_FAMILY);
        header.set_flags(NLM_F_REQUEST | NLM_F_DUMP);
        request.emit(&mut packet[HEADER..]);
        self.socket.send(&packet, 0).map(drop)
    }
}

/// Passes the payload of each entry to `entry`. Returns whether the dump is over, and whether the kernel marks this
/// part as complete.
pub(crate) fn read_datagram(datagram: &[u8], mut entry: impl FnMut(&[u8])) -> io::Result<(bool, bool)> {
    let (mut rest, mut complete) = (datagram, true);
    while rest.len() >= HEADER {
        let message = NetlinkBuffer::new_checked(rest).map_err(io::Error::other)?;
        complete &= message.flags() & NLM_F_DUMP_INTR == 0;
        match message.message_type() {
            DONE => return Ok((true, complete)),
            ERROR => return Err(request_error(message.payload())),
            SOCK_DIAG_BY_FAMILY => entry(message.payload()),
            _ => {}
        }
        let length = (message.length() as usize).next_multiple_of(4);
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok((false, complete))
}

fn request_error(payload: &[u8]) -> io::Error {
    let errno = u32_at(payload, 0).map_or(0, |code| i32::from_ne_bytes(code.to_ne_bytes()).saturating_neg());
    let error = io::Error::from_raw_os_error(errno);
    if error.kind() == ErrorKind::NotFound {
        let hint = "the kernel has no sock_diag for this address family: modprobe tcp_diag unix_diag";
        return io::Error::new(ErrorKind::NotFound, hint);
    }
    error
}

/// Iterates over netlink attributes as type and payload.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(Result::ok).map(|attribute| {
        let bytes = attribute.into_inner();
        let end = usize::from(u16::from_ne_bytes([bytes[0], bytes[1]])).min(bytes.len());
        (u16::from_ne_bytes([bytes[2], bytes[3]]) & 0x3fff, &bytes[4..end])
    })
}

/// Reads a field at an offset. Returns `None` if this kernel's structure is too short to have it.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(field.try_into().expect("four bytes")))
}

/// As [`u32_at`], for 64 bits.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let field = bytes.get(at..at + 8)?;
    Some(u64::from_ne_bytes(field.try_into().expect("eight bytes")))
}
