//! `sock_diag(7)`: the kernel's own list of sockets, which any user may read.

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
/// How often a list is asked for anew that changed while it was read.
const ATTEMPTS: usize = 4;
/// The longest datagram that the kernel makes of a dump is half of this. It also makes them as long as what it
/// has seen the reader ask for, and what does not fit into one ends the list without a word.
const ROOM: usize = 64 * 1024;

/// An open question line to the kernel.
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

    /// Asks for all sockets that match, and reads each answer.
    ///
    /// A list that changed while the kernel walked through it may lack some: then it is read again, a few
    /// times.
    pub(crate) fn dump<T>(
        &self,
        request: &impl Emitable,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        for _ in 1..ATTEMPTS {
            let (found, whole) = self.dump_once(request, &read)?;
            if whole {
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
        self.ask(request)?;
        let (mut found, mut whole) = (Vec::new(), true);
        let mut datagram = Vec::with_capacity(ROOM);
        loop {
            datagram.clear();
            self.socket.recv(&mut datagram, 0)?;
            let mut rest = &datagram[..];
            while rest.len() >= HEADER {
                let message = NetlinkBuffer::new_checked(rest).map_err(io::Error::other)?;
                whole &= message.flags() & NLM_F_DUMP_INTR == 0;
                match message.message_type() {
                    DONE => return Ok((found, whole)),
                    ERROR => return Err(refused(message.payload())),
                    SOCK_DIAG_BY_FAMILY => found.extend(read(message.payload())),
                    _ => {}
                }
                let length = (message.length() as usize).next_multiple_of(4);
                rest = rest.get(length..).unwrap_or_default();
            }
        }
    }

    fn ask(&self, request: &impl Emitable) -> io::Result<()> {
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

fn refused(payload: &[u8]) -> io::Error {
    let errno = u32_at(payload, 0).map_or(0, |code| i32::from_ne_bytes(code.to_ne_bytes()).saturating_neg());
    let error = io::Error::from_raw_os_error(errno);
    if error.kind() == ErrorKind::NotFound {
        let hint = "the kernel has no socket diagnosis for this family: load tcp_diag or unix_diag";
        return io::Error::new(ErrorKind::NotFound, hint);
    }
    error
}

/// The attributes after a message's fixed part, as number and bytes.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(Result::ok).map(|attribute| {
        let bytes = attribute.into_inner();
        let end = usize::from(u16::from_ne_bytes([bytes[0], bytes[1]])).min(bytes.len());
        (u16::from_ne_bytes([bytes[2], bytes[3]]) & 0x3fff, &bytes[4..end])
    })
}

/// A field by its place. A field that this kernel does not report is `None`: newer ones are appended.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(field.try_into().expect("four bytes")))
}
