//! TCP connections of a listening port. One that is still in the accept queue has inode 0.

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
/// The offset of `tcpi_last_data_sent`: the age of a connection on which nothing was sent, such as a queued
/// one.
const LAST_DATA_SENT: usize = 44;
const CLOSE_WAIT: u8 = 8;

/// The server's side of a connection to a listening port.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) cookie: [u8; 8],
    /// The client has sent a FIN.
    pub(crate) close_wait: bool,
    /// The time in the accept queue.
    pub(crate) age: Option<Duration>,
    /// 0 until it is accepted.
    pub(crate) inode: u64,
}

impl Connection {
    /// Lists the connections of a port in ESTABLISHED or CLOSE_WAIT, queued and accepted.
    pub(crate) fn of_port(diag: &Diag, port: u16) -> io::Result<Vec<Self>> {
        Self::in_states(diag, port, &(StateFlags::ESTABLISHED | StateFlags::CLOSE_WAIT))
    }

    /// Lists the connections in CLOSE_WAIT with inode 0, on all ports.
    pub(crate) fn unowned_close_wait(diag: &Diag) -> io::Result<Vec<Self>> {
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

    /// Returns whether it arrived at a listener on this address, given the listeners on specific addresses.
    pub(crate) fn arrived_at(&self, listener: SocketAddr, specific: &HashSet<SocketAddr>) -> bool {
        listens_for(listener, self.local)
            && !(listener.ip().is_unspecified() && specific.contains(&self.local))
    }
}

/// Collects the listening addresses that are not wildcards.
pub(crate) fn specific<'a>(listeners: impl Iterator<Item = &'a Listener>) -> HashSet<SocketAddr> {
    listeners.filter_map(Listener::socket).filter(|address| !address.ip().is_unspecified()).collect()
}

fn listens_for(listener: SocketAddr, local: SocketAddr) -> bool {
    // The connections of an IPv6 listener are IPv6 sockets, also those of IPv4 clients.
    listener.is_ipv4() == local.is_ipv4()
        && listener.port() == local.port()
        && (listener.ip().is_unspecified() || listener.ip() == local.ip())
}

fn read(message: &[u8]) -> Option<Connection> {
    let header = InetResponseHeader::parse(message.get(..INET_HEADER)?).ok()?;
    let id = &header.socket_id;
    let age = attributes(&message[INET_HEADER..])
        .find(|(number, _)| *number == INET_DIAG_INFO)
        .and_then(|(_, info)| u32_at(info, LAST_DATA_SENT))
        .map(|ms| Duration::from_millis(ms.into()));
    Some(Connection {
        local: (id.source_address, id.source_port).into(),
        peer: (id.destination_address, id.destination_port).into(),
        cookie: id.cookie,
        close_wait: header.state == CLOSE_WAIT,
        age,
        inode: header.inode.into(),
    })
}
