//! Every listening socket, with its queue.

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

/// What kind of socket listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Tcp,
    Tcp6,
    Mptcp,
    Mptcp6,
    Unix,
    Seqpacket,
}

/// Where it listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Address {
    Inet(SocketAddr),
    /// As it was bound: may be relative, or no UTF-8.
    Path(String),
    Abstract(String),
    Unnamed,
}

/// A listening socket at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    pub(crate) kind: Kind,
    pub(crate) address: Address,
    pub(crate) inode: u64,
    pub(crate) cookie: [u8; 8],
    /// Who made it. Unix sockets tell since Linux 5.3.
    pub(crate) uid: Option<u32>,
    /// How many connections wait to be accepted.
    pub(crate) queued: u32,
    /// The backlog in force. The queue holds one more.
    pub(crate) backlog: u32,
    /// SYNs and handshakes dropped at this socket since it was made. Unix sockets drop none.
    pub(crate) drops: Option<u32>,
    /// Unix: the inodes of the clients that wait, the oldest first; 0 for one that has gone. `None` if they are
    /// too many for the kernel to list.
    pub(crate) clients: Option<Vec<u32>>,
    /// IPv6: it serves no IPv4.
    pub(crate) is_v6_only: bool,
    /// Unix: inode and device of the path it was bound to.
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
            // Names come from anybody: a control character must not reach a terminal.
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
    /// How many connections may wait: the kernel lets one more in than the backlog says.
    pub(crate) fn capacity(&self) -> u32 {
        self.backlog.saturating_add(1)
    }

    /// Its address, if it is not a Unix socket.
    pub(crate) fn socket(&self) -> Option<SocketAddr> {
        match self.address {
            Address::Inet(address) => Some(address),
            _ => None,
        }
    }

    /// Every TCP and MPTCP listener of this network namespace, or those of one port.
    pub(crate) fn inet(diag: &Diag, port: Option<u16>) -> io::Result<Vec<Self>> {
        let mut found = Vec::new();
        for (family, mut socket_id) in [(AF_INET, SocketId::new_v4()), (AF_INET6, SocketId::new_v6())] {
            socket_id.source_port = port.unwrap_or(0);
            let request = InetRequest {
                family,
                protocol: IPPROTO_TCP,
                // What makes it MPTCP comes along with the information on TCP.
                extensions: inet::ExtensionFlags::SKMEMINFO | inet::ExtensionFlags::INFO,
                states: inet::StateFlags::LISTEN,
                socket_id,
            };
            found.extend(diag.dump(&request, read_inet)?);
        }
        Ok(found)
    }

    /// Every Unix listener of this network namespace.
    ///
    /// The list of those who wait at one may not fit into a message, and then ends the dump: so it is asked for
    /// by itself, and where it is missing the rest is known all the same.
    pub(crate) fn unix(diag: &Diag) -> io::Result<Vec<Self>> {
        let show = ShowFlags::NAME | ShowFlags::VFS | ShowFlags::RQLEN;
        let mut found = listening_unix(diag, show | ShowFlags::from_bits_retain(UDIAG_SHOW_UID))?;
        let listed = listening_unix(diag, ShowFlags::ICONS | ShowFlags::RQLEN)?;
        let mut listed: HashMap<[u8; 8], Self> = listed.into_iter().map(|one| (one.cookie, one)).collect();
        for listener in &mut found {
            // Length and list are of one moment.
            if let Some(Self { queued, clients, .. }) = listed.remove(&listener.cookie) {
                (listener.queued, listener.clients) = (queued, clients);
            }
        }
        Ok(found)
    }

    /// Unix: how many of those who wait have gone.
    pub(crate) fn gone_clients(&self) -> Option<usize> {
        Some(self.clients.as_ref()?.iter().filter(|client| **client == 0).count())
    }

    /// The Unix sockets that were accepted: each bears the name of its listener. Name and inode.
    pub(crate) fn accepted_unix(diag: &Diag) -> io::Result<Vec<(Address, u64)>> {
        let request = UnixRequest {
            state_flags: unix::StateFlags::ESTABLISHED,
            inode: 0,
            show_flags: ShowFlags::NAME,
            cookie: [0xff; 8],
        };
        let sockets = diag.dump(&request, read_unix)?.into_iter();
        let is_accepted = |socket: &Self| socket.inode != 0 && socket.address != Address::Unnamed;
        Ok(sockets.filter(is_accepted).map(|socket| (socket.address, socket.inode)).collect())
    }
}

fn listening_unix(diag: &Diag, show_flags: ShowFlags) -> io::Result<Vec<Listener>> {
    let state_flags = unix::StateFlags::LISTEN;
    diag.dump(&UnixRequest { state_flags, inode: 0, show_flags, cookie: [0xff; 8] }, read_unix)
}

fn read_inet(message: &[u8]) -> Option<Listener> {
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

fn read_unix(message: &[u8]) -> Option<Listener> {
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

/// A path ends with a zero, or with the field; an abstract name begins with one.
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
