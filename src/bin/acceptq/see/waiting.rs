//! The connections that wait in an accept queue. TCP shows them as sockets that no process owns yet.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use netlink_packet_core::Parseable;
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags};
use netlink_packet_sock_diag::{AF_INET, AF_INET6, IPPROTO_TCP};

use super::diag::{Diag, attributes, u32_at};
use super::listener::Listener;

const INET_HEADER: usize = 72;
const INET_DIAG_INFO: u16 = 2;
/// `tcpi_last_data_sent`. It begins with the connection, and nothing is sent on one that nobody accepted.
const LAST_DATA_SENT: usize = 44;
const CLOSE_WAIT: u8 = 8;

/// A connection to a listening port.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) cookie: [u8; 8],
    /// The client has gone, or has at least said that it will send no more.
    pub(crate) close_wait: bool,
    /// How long it has been waiting.
    pub(crate) age: Option<Duration>,
    /// Zero until it is accepted.
    pub(crate) inode: u64,
}

impl Waiting {
    /// The connections to a port that are established or in CLOSE_WAIT, those that were accepted included.
    pub(crate) fn of_port(diag: &Diag, port: u16) -> io::Result<Vec<Self>> {
        Self::in_states(diag, port, &(StateFlags::ESTABLISHED | StateFlags::CLOSE_WAIT))
    }

    /// Those in CLOSE_WAIT that no process has, on all ports.
    pub(crate) fn dead(diag: &Diag) -> io::Result<Vec<Self>> {
        let mut all = Self::in_states(diag, 0, &StateFlags::CLOSE_WAIT)?;
        all.retain(Self::is_unowned);
        Ok(all)
    }

    fn in_states(diag: &Diag, port: u16, states: &StateFlags) -> io::Result<Vec<Self>> {
        let mut found = Vec::new();
        for (family, mut socket_id) in [(AF_INET, SocketId::new_v4()), (AF_INET6, SocketId::new_v6())] {
            socket_id.source_port = port;
            let request = InetRequest {
                family,
                protocol: IPPROTO_TCP,
                extensions: ExtensionFlags::INFO,
                states: states.clone(),
                socket_id,
            };
            found.extend(diag.dump(&request, read)?);
        }
        Ok(found)
    }

    pub(crate) fn is_unowned(&self) -> bool {
        self.inode == 0
    }

    /// Whether it came in by a listener on this address, and not by one on an address of its own.
    pub(crate) fn came_by(&self, listener: SocketAddr, specific: &HashSet<SocketAddr>) -> bool {
        fits(listener, self.local) && !(listener.ip().is_unspecified() && specific.contains(&self.local))
    }
}

/// Those addresses of listeners that are no wildcards.
pub(crate) fn specific<'a>(listeners: impl Iterator<Item = &'a Listener>) -> HashSet<SocketAddr> {
    listeners.filter_map(Listener::socket).filter(|address| !address.ip().is_unspecified()).collect()
}

fn fits(listener: SocketAddr, local: SocketAddr) -> bool {
    // An IPv6 listener's connections are IPv6 sockets, those of IPv4 clients too.
    listener.is_ipv4() == local.is_ipv4()
        && listener.port() == local.port()
        && (listener.ip().is_unspecified() || listener.ip() == local.ip())
}

fn read(message: &[u8]) -> Option<Waiting> {
    let header = InetResponseHeader::parse(message.get(..INET_HEADER)?).ok()?;
    let id = &header.socket_id;
    let age = attributes(&message[INET_HEADER..])
        .find(|(number, _)| *number == INET_DIAG_INFO)
        .and_then(|(_, info)| u32_at(info, LAST_DATA_SENT))
        .map(|ms| Duration::from_millis(ms.into()));
    Some(Waiting {
        local: (id.source_address, id.source_port).into(),
        peer: (id.destination_address, id.destination_port).into(),
        cookie: id.cookie,
        close_wait: header.state == CLOSE_WAIT,
        age,
        inode: header.inode.into(),
    })
}
