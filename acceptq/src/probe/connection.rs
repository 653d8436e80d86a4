//! TCP connections of a listening port. One that is still in the accept queue has inode 0.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use netlink_packet_core::Parseable;
use netlink_packet_sock_diag::inet::{
    ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags, Timer,
};
use netlink_packet_sock_diag::{AF_INET, AF_INET6, IPPROTO_TCP};

use super::diag::{Diag, attributes, u32_at, u64_at};
use super::listener::Listener;

const INET_HEADER: usize = 72;
const INET_DIAG_INFO: u16 = 2;
/// The offset of `tcpi_last_data_sent`: the age of a connection on which nothing was sent, such as a queued
/// one.
const LAST_DATA_SENT: usize = 44;
/// The offset of `tcpi_bytes_received`.
const BYTES_RECEIVED: usize = 128;
/// Longer than the first timeout of a SYN-ACK, one second.
const SECOND_TIMEOUT: Duration = Duration::from_millis(1100);
const ESTABLISHED: u8 = 1;
const SYN_RECV: u8 = 3;
const CLOSE_WAIT: u8 = 8;

/// The server's side of a connection to a listening port.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) cookie: [u8; 8],
    /// The client has sent a FIN.
    pub(crate) close_wait: bool,
    pub(crate) phase: Phase,
    /// Bytes that the owner has not read: `Recv-Q` of ss(8).
    pub(crate) unread: u32,
    /// Bytes that the owner has read, if the kernel counts them.
    pub(crate) read: Option<u64>,
    /// The time in the accept queue.
    pub(crate) age: Option<Duration>,
    /// 0 until it is accepted.
    pub(crate) inode: u64,
    /// Its handshake is complete, and `TCP_DEFER_ACCEPT` waits for data: a timeout has passed without another
    /// SYN-ACK.
    pub(crate) is_deferred: bool,
}

/// The states of a connection, as far as an accept queue depends on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// `SYN_RECV`: the handshake is not complete, or `TCP_DEFER_ACCEPT` waits for data.
    Handshake,
    /// `ESTABLISHED` or `CLOSE_WAIT`: queued or accepted.
    Open,
    /// Closed by the server first: `FIN_WAIT1`, `FIN_WAIT2`, `CLOSING`, `LAST_ACK` or `TIME_WAIT`.
    Closed,
}

impl Connection {
    /// Lists the connections of a port in ESTABLISHED or CLOSE_WAIT, queued and accepted.
    pub(crate) fn of_port(diag: &Diag, port: u16) -> io::Result<Vec<Self>> {
        Self::in_states(diag, port, &(StateFlags::ESTABLISHED | StateFlags::CLOSE_WAIT))
    }

    /// Lists the connections of a port in every state: unfinished handshakes and closed connections, too.
    pub(crate) fn of_port_in_every_state(diag: &Diag, port: u16) -> io::Result<Vec<Self>> {
        let states = StateFlags::all() - StateFlags::LISTEN - StateFlags::CLOSE - StateFlags::SYN_SENT;
        Self::in_states(diag, port, &states)
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

    /// Returns whether it is in an accept queue.
    pub(crate) fn is_unowned(&self) -> bool {
        self.inode == 0 && self.phase == Phase::Open
    }

    /// Returns whether a process has accepted it and not closed it.
    pub(crate) fn is_accepted(&self) -> bool {
        self.inode != 0 && self.phase == Phase::Open
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

pub(crate) fn read(message: &[u8]) -> Option<Connection> {
    let header = InetResponseHeader::parse(message.get(..INET_HEADER)?).ok()?;
    let id = &header.socket_id;
    let info = attributes(&message[INET_HEADER..]).find(|(number, _)| *number == INET_DIAG_INFO);
    let info = info.map_or(&[][..], |(_, info)| info);
    let age = u32_at(info, LAST_DATA_SENT).map(|ms| Duration::from_millis(ms.into()));
    let phase = match header.state {
        ESTABLISHED | CLOSE_WAIT => Phase::Open,
        SYN_RECV => Phase::Handshake,
        _ => Phase::Closed,
    };
    let is_deferred = phase == Phase::Handshake
        && matches!(header.timer, Some(Timer::Retransmit(left, 0)) if left >= SECOND_TIMEOUT);
    // The client's FIN counts as a byte.
    let unread = header.recv_queue.saturating_sub(u32::from(header.state == CLOSE_WAIT));
    let read = u64_at(info, BYTES_RECEIVED).map(|received| received.saturating_sub(unread.into()));
    Some(Connection {
        local: (id.source_address, id.source_port).into(),
        peer: (id.destination_address, id.destination_port).into(),
        cookie: id.cookie,
        close_wait: header.state == CLOSE_WAIT,
        phase,
        unread,
        read,
        age,
        inode: header.inode.into(),
        is_deferred,
    })
}
