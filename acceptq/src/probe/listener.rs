//! Listening sockets and their accept queues.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;

use netlink_packet_core::Parseable;
use netlink_packet_sock_diag::inet::{self, InetRequest, InetResponseHeader, SocketId};
use netlink_packet_sock_diag::unix::{self, ShowFlags, UnixRequest, UnixResponseHeader};
use netlink_packet_sock_diag::{AF_INET, AF_INET6, IPPROTO_TCP};
use serde::Serialize;

use super::diag::{Diag, attributes, u32_at};

const INET_DIAG_SKMEMINFO: u16 = 7;
const INET_DIAG_SKV6ONLY: u16 = 11;
const INET_DIAG_ULP_INFO: u16 = 19;
const INET_ULP_INFO_NAME: u16 = 1;
const SK_MEMINFO_DROPS: usize = 8 * 4;
const INET_HEADER: usize = 72;

const UNIX_DIAG_NAME: u16 = 0;
const UNIX_DIAG_VFS: u16 = 1;
const UNIX_DIAG_ICONS: u16 = 3;
const UNIX_DIAG_RQLEN: u16 = 4;
const UNIX_DIAG_UID: u16 = 7;
const UDIAG_SHOW_UID: u32 = 0x40;
const UNIX_HEADER: usize = 16;

/// The protocol of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Tcp,
    Tcp6,
    Mptcp,
    Mptcp6,
    Unix,
    Seqpacket,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Address {
    Inet(SocketAddr),
    /// The path passed to bind(2): may be relative, or not UTF-8.
    Path(String),
    Abstract(String),
    Unnamed,
}

/// A snapshot of a listening socket.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    pub(crate) kind: Kind,
    pub(crate) address: Address,
    pub(crate) inode: u64,
    pub(crate) cookie: [u8; 8],
    /// The uid that created it. Unix sockets report it since Linux 5.3.
    pub(crate) uid: Option<u32>,
    /// The number of connections in the accept queue.
    pub(crate) queued: u32,
    /// The effective backlog. The queue holds one connection more.
    pub(crate) backlog: u32,
    /// SYNs and other segments dropped at this socket since it was created. Unix sockets drop none.
    pub(crate) drops: Option<u32>,
    /// Unix: the inodes of the queued clients, oldest first; 0 for a client that has closed. `None` if the
    /// kernel cannot list that many.
    pub(crate) clients: Option<Vec<u32>>,
    /// IPv6: `IPV6_V6ONLY` is set.
    pub(crate) is_v6_only: bool,
    /// Unix: inode and device of the bound path.
    pub(crate) file: Option<(u32, u32)>,
}

impl Kind {
    pub(crate) fn is_unix(self) -> bool {
        matches!(self, Self::Unix | Self::Seqpacket)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tcp6 => "tcp6",
            Self::Mptcp => "mptcp",
            Self::Mptcp6 => "mptcp6",
            Self::Unix => "unix",
            Self::Seqpacket => "seqpacket",
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(address) => address.fmt(f),
            // Any process can choose a name: a control character must not reach the terminal.
            Self::Path(path) => path.escape_debug().fmt(f),
            Self::Abstract(name) => write!(f, "@{}", name.escape_debug()),
            Self::Unnamed => f.write_str("(no name)"),
        }
    }
}

impl Serialize for Address {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Path(path) => serializer.serialize_str(path),
            Self::Abstract(name) => serializer.collect_str(&format_args!("@{name}")),
            _ => serializer.collect_str(self),
        }
    }
}

impl Listener {
    /// Returns the capacity of the accept queue: the kernel admits one connection more than the backlog.
    pub(crate) fn capacity(&self) -> u32 {
        self.backlog.saturating_add(1)
    }

    /// Returns the address, or `None` for a Unix socket.
    pub(crate) fn socket(&self) -> Option<SocketAddr> {
        match self.address {
            Address::Inet(address) => Some(address),
            _ => None,
        }
    }

    /// Lists the TCP and MPTCP listeners of this network namespace, on all ports or on one.
    pub(crate) fn inet(diag: &Diag, port: Option<u16>) -> io::Result<Vec<Self>> {
        let mut found = Vec::new();
        for (family, mut socket_id) in [(AF_INET, SocketId::new_v4()), (AF_INET6, SocketId::new_v6())] {
            socket_id.source_port = port.unwrap_or(0);
            let request = InetRequest {
                family,
                protocol: IPPROTO_TCP,
                // The kernel reports the MPTCP attribute along with INFO.
                extensions: inet::ExtensionFlags::SKMEMINFO | inet::ExtensionFlags::INFO,
                states: inet::StateFlags::LISTEN,
                socket_id,
            };
            found.extend(diag.dump(&request, read_inet)?);
        }
        Ok(found)
    }

    /// Lists the Unix listeners of this network namespace.
    ///
    /// A long queue may not fit into a message, which ends the dump. A second request therefore lists the
    /// queued clients; a listener missing from it keeps the data of the first.
    pub(crate) fn unix(diag: &Diag) -> io::Result<Vec<Self>> {
        let show = ShowFlags::NAME | ShowFlags::VFS | ShowFlags::RQLEN;
        let mut found = listening_unix(diag, show | ShowFlags::from_bits_retain(UDIAG_SHOW_UID))?;
        let listed = listening_unix(diag, ShowFlags::ICONS | ShowFlags::RQLEN)?;
        let mut listed: HashMap<[u8; 8], Self> = listed.into_iter().map(|one| (one.cookie, one)).collect();
        for listener in &mut found {
            // Takes length and list from the same message.
            if let Some(Self { queued, clients, .. }) = listed.remove(&listener.cookie) {
                (listener.queued, listener.clients) = (queued, clients);
            }
        }
        Ok(found)
    }

    /// Unix: returns the number of queued connections whose client has closed.
    pub(crate) fn closed_clients(&self) -> Option<usize> {
        Some(self.clients.as_ref()?.iter().filter(|client| **client == 0).count())
    }

    /// Lists the accepted Unix sockets. Each has the name of its listener; `queued` counts its unread bytes.
    pub(crate) fn accepted_unix(diag: &Diag) -> io::Result<Vec<Self>> {
        let request = UnixRequest {
            state_flags: unix::StateFlags::ESTABLISHED,
            inode: 0,
            show_flags: ShowFlags::NAME | ShowFlags::RQLEN,
            cookie: [0xff; 8],
        };
        let mut sockets = diag.dump(&request, read_unix)?;
        sockets.retain(|socket| socket.inode != 0 && socket.address != Address::Unnamed);
        Ok(sockets)
    }
}

fn listening_unix(diag: &Diag, show_flags: ShowFlags) -> io::Result<Vec<Listener>> {
    let state_flags = unix::StateFlags::LISTEN;
    diag.dump(&UnixRequest { state_flags, inode: 0, show_flags, cookie: [0xff; 8] }, read_unix)
}

pub(crate) fn read_inet(message: &[u8]) -> Option<Listener> {
    let header = InetResponseHeader::parse(message.get(..INET_HEADER)?).ok()?;
    let (mut drops, mut is_mptcp, mut is_v6_only) = (None, false, false);
    for (number, value) in attributes(&message[INET_HEADER..]) {
        match number {
            INET_DIAG_SKMEMINFO => drops = u32_at(value, SK_MEMINFO_DROPS),
            INET_DIAG_SKV6ONLY => is_v6_only = value.first() == Some(&1),
            INET_DIAG_ULP_INFO => {
                is_mptcp = attributes(value)
                    .any(|(number, name)| number == INET_ULP_INFO_NAME && name.starts_with(b"mptcp"));
            }
            _ => {}
        }
    }
    let kind = match (header.family == AF_INET6, is_mptcp) {
        (false, false) => Kind::Tcp,
        (true, false) => Kind::Tcp6,
        (false, true) => Kind::Mptcp,
        (true, true) => Kind::Mptcp6,
    };
    Some(Listener {
        kind,
        address: Address::Inet((header.socket_id.source_address, header.socket_id.source_port).into()),
        inode: header.inode.into(),
        cookie: header.socket_id.cookie,
        uid: Some(header.uid),
        queued: header.recv_queue,
        backlog: header.send_queue,
        drops,
        clients: None,
        is_v6_only,
        file: None,
    })
}

pub(crate) fn read_unix(message: &[u8]) -> Option<Listener> {
    let header = UnixResponseHeader::parse(message.get(..UNIX_HEADER)?).ok()?;
    let kind = match i32::from(header.kind) {
        libc::SOCK_SEQPACKET => Kind::Seqpacket,
        _ => Kind::Unix,
    };
    let mut listener = Listener {
        kind,
        address: Address::Unnamed,
        inode: header.inode.into(),
        cookie: header.cookie,
        uid: None,
        queued: 0,
        backlog: 0,
        drops: None,
        clients: None,
        is_v6_only: false,
        file: None,
    };
    for (number, value) in attributes(&message[UNIX_HEADER..]) {
        match number {
            UNIX_DIAG_NAME => listener.address = unix_name(value),
            UNIX_DIAG_VFS => listener.file = u32_at(value, 0).zip(u32_at(value, 4)),
            UNIX_DIAG_ICONS => {
                let clients = (0..value.len()).step_by(4).map_while(|at| u32_at(value, at));
                listener.clients = Some(clients.collect());
            }
            UNIX_DIAG_RQLEN => {
                listener.queued = u32_at(value, 0)?;
                listener.backlog = u32_at(value, 4)?;
            }
            UNIX_DIAG_UID => listener.uid = u32_at(value, 0),
            _ => {}
        }
    }
    Some(listener)
}

/// Parses a name. A path ends at a zero byte or with the field; an abstract name starts with a zero byte.
fn unix_name(bytes: &[u8]) -> Address {
    match bytes.split_first() {
        None => Address::Unnamed,
        Some((0, name)) => Address::Abstract(String::from_utf8_lossy(name).into_owned()),
        Some(_) => {
            let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
            Address::Path(String::from_utf8_lossy(&bytes[..end]).into_owned())
        }
    }
}
