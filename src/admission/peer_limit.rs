//! A limit on the connections of one peer.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::connection_info::ConnectionInfo;
use super::count_table::CountTable;
use super::filter::{Filter, Reservation};
use super::refusal::{Cause, Refusal, Rejection};
use super::sync::{Arc, AtomicU32, AtomicU64, Mutex, Ordering, lock};

/// A limit on the connections in service of each peer, over all acceptors that share it. Clones are the same limit.
///
/// A peer is an IPv4 address, an IPv6 /64 network, or the user at the other end of a Unix socket. A connection
/// above the limit is refused, by a reset unless [`refusal`](PeerLimitBuilder::refusal) says otherwise. It cannot wait:
/// its peer is unknown until it is accepted, and an accepted connection cannot be put back into the queue.
///
/// ```
/// use epoll_acceptor::PeerLimit;
///
/// let peers = PeerLimit::builder(20).capacity(10_000).exempt([127, 0, 0, 0].into(), 8).build();
/// assert_eq!(peers.peers(), 0, "no connection is in service yet");
/// peers.set_limit(30); // at any time
/// ```
///
/// ## Behind a proxy
///
/// All connections have the proxy's address: [`exempt`](PeerLimitBuilder::exempt) it, and count the client when its
/// address is known, from a PROXY header for example:
///
/// ```
/// # let peers = epoll_acceptor::PeerLimit::new(1);
/// let permit = peers.try_acquire([192, 0, 2, 7].into()); // keep it with the connection
/// assert!(permit.is_some());
/// assert!(peers.try_acquire([192, 0, 2, 7].into()).is_none());
/// ```
///
/// ## Bounded memory
///
/// Only peers with connections in service are remembered, in a table that never grows: for 16,384 peers unless
/// [`capacity`](PeerLimitBuilder::capacity) is set. When it is full, a connection of a further peer is refused, or
/// admitted uncounted with [`allow_when_table_full`](PeerLimitBuilder::allow_when_table_full);
/// [`table_full_count`](Self::table_full_count) counts both. So an attacker that fills the table locks others out, or
/// evades the limit. Set the capacity to the gate's limit: then the table cannot be full before the gate. The hash is
/// keyed, so that no client can choose addresses that make the table slow.
///
/// ## NAT and IPv6 prefixes
///
/// One IPv4 address may be a company or, with carrier-grade NAT, thousands of customers. Choose a limit that no such
/// address reaches in normal use, and [`exempt`](PeerLimitBuilder::exempt) known ones. An IPv6 customer has at least
/// 2^64 addresses, and many providers assign a /56 or /48: [`v6_prefix`](PeerLimitBuilder::v6_prefix). A limit for each
/// address stops one client, not a botnet.
///
/// ## Clients that reset at once
///
/// The address is read with the accept, so connections that were reset in the queue are counted, too. Each costs an
/// accept.
#[derive(Clone)]
pub struct PeerLimit {
    shared: Arc<Shared>,
}

struct Shared {
    rules: Rules,
    limit: AtomicU32,
    table: Mutex<CountTable<Peer>>,
    table_full: AtomicU64,
}

#[derive(Clone, Debug)]
struct Rules {
    v4_prefix: u8,
    v6_prefix: u8,
    exempt: Vec<(Peer, u8)>,
    allow_unknown: bool,
    allow_when_table_full: bool,
    refusal: Refusal,
}

/// Configures a [`PeerLimit`]; made by [`PeerLimit::builder`].
#[derive(Clone, Debug)]
#[must_use = "call `build`"]
pub struct PeerLimitBuilder {
    limit: u32,
    capacity: usize,
    rules: Rules,
}

/// Connections with the same `Peer` are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Peer {
    V4([u8; 4]),
    V6([u8; 16]),
    User(u32),
    Unknown,
}

/// A connection's share of its peer's limit, released when dropped. Empty until the connection is admitted, and for
/// connections that are not counted.
#[must_use = "dropping it releases the count"]
pub struct PeerPermit(Option<(Arc<Shared>, Peer)>);

const V4_BITS: u8 = 32;
const V6_BITS: u8 = 128;
const CAPACITY: usize = 16_384;

impl PeerLimit {
    /// Creates a limit of `limit` connections per peer. 0 refuses every peer that is not exempt.
    #[must_use]
    pub fn new(limit: u32) -> Self {
        Self::builder(limit).build()
    }

    /// Configures a limit of `limit` connections per peer.
    pub const fn builder(limit: u32) -> PeerLimitBuilder {
        let rules = Rules {
            v4_prefix: V4_BITS,
            v6_prefix: 64,
            exempt: Vec::new(),
            allow_unknown: false,
            allow_when_table_full: false,
            refusal: Refusal::Reset,
        };
        PeerLimitBuilder { limit, capacity: CAPACITY, rules }
    }

    /// Counts a connection whose peer becomes known after the accept; `None` if the peer is at its limit.
    #[must_use]
    pub fn try_acquire(&self, peer: IpAddr) -> Option<PeerPermit> {
        match self.shared.rules.peer_at(peer) {
            Some(peer) => Shared::count(&self.shared, peer).ok(),
            None => Some(PeerPermit(None)),
        }
    }

    /// Returns the limit per peer.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.shared.limit.load(Ordering::Relaxed)
    }

    /// Changes the limit per peer, for new connections.
    pub fn set_limit(&self, limit: u32) {
        self.shared.limit.store(limit, Ordering::Relaxed);
    }

    /// Returns how many peers have connections in service that are counted.
    #[must_use]
    pub fn peers(&self) -> usize {
        lock(&self.shared.table).keys()
    }

    /// Returns how many connections were refused, or admitted uncounted, because the table was full.
    #[must_use]
    pub fn table_full_count(&self) -> u64 {
        self.shared.table_full.load(Ordering::Relaxed)
    }
}

impl PeerLimitBuilder {
    /// Counts IPv4 addresses together that share their first `bits` bits: 32 unless set.
    ///
    /// # Panics
    ///
    /// If it is more than 32.
    pub const fn v4_prefix(mut self, bits: u8) -> Self {
        assert!(bits <= V4_BITS, "an IPv4 prefix has at most 32 bits");
        self.rules.v4_prefix = bits;
        self
    }

    /// Counts IPv6 addresses together that share their first `bits` bits: 64 unless set.
    ///
    /// # Panics
    ///
    /// If it is more than 128.
    pub const fn v6_prefix(mut self, bits: u8) -> Self {
        assert!(bits <= V6_BITS, "an IPv6 prefix has at most 128 bits");
        self.rules.v6_prefix = bits;
        self
    }

    /// Remembers at most `peers` peers: 16,384 unless set. The table takes 48 to 96 bytes for each, from the start.
    ///
    /// # Panics
    ///
    /// If it is 0.
    pub const fn capacity(mut self, peers: usize) -> Self {
        assert!(peers > 0, "the capacity must be at least 1");
        self.capacity = peers;
        self
    }

    /// Admits peers uncounted if the first `bits` bits of their address are those of `address`. An IPv4 address covers
    /// IPv4 peers of dual-stack listeners as well.
    ///
    /// # Panics
    ///
    /// If the address has fewer bits.
    pub fn exempt(mut self, address: IpAddr, bits: u8) -> Self {
        let (address, bits) = match address {
            IpAddr::V6(v6) if bits >= 96 => match v6.to_ipv4_mapped() {
                Some(v4) => (IpAddr::V4(v4), bits - 96),
                None => (address, bits),
            },
            address => (address, bits),
        };
        let max = if address.is_ipv4() { V4_BITS } else { V6_BITS };
        assert!(bits <= max, "the prefix of {address} has at most {max} bits");
        self.rules.exempt.push((Peer::of(address, bits, bits), bits));
        self
    }

    /// Admits this user of a Unix socket uncounted.
    pub fn exempt_user(mut self, uid: u32) -> Self {
        self.rules.exempt.push((Peer::User(uid), 0));
        self
    }

    /// Admits peers without address and credentials uncounted, instead of counting them as one peer.
    pub const fn allow_unknown(mut self) -> Self {
        self.rules.allow_unknown = true;
        self
    }

    /// Admits peers uncounted when the table is full, instead of refusing them.
    pub const fn allow_when_table_full(mut self) -> Self {
        self.rules.allow_when_table_full = true;
        self
    }

    /// Sets how a connection above the limit is refused; the default, a reset, leaves no TIME_WAIT.
    pub fn refusal(mut self, refusal: Refusal) -> Self {
        self.rules.refusal = refusal;
        self
    }

    /// Creates the limit.
    ///
    /// # Panics
    ///
    /// If the [`capacity`](Self::capacity) overflows.
    #[must_use]
    pub fn build(self) -> PeerLimit {
        let shared = Shared {
            rules: self.rules,
            limit: AtomicU32::new(self.limit),
            table: Mutex::new(CountTable::new(self.capacity)),
            table_full: AtomicU64::new(0),
        };
        PeerLimit { shared: Arc::new(shared) }
    }
}

impl Rules {
    /// Returns the peer of a connection, if it is counted.
    fn peer(&self, connection: &ConnectionInfo<'_>) -> Option<Peer> {
        let peer = match connection.peer() {
            Some(address) => return self.peer_at(address.ip()),
            None => connection.credentials().map_or(Peer::Unknown, |credentials| Peer::User(credentials.uid)),
        };
        let exempt = self.exempt.iter().any(|(exempt, _)| *exempt == peer);
        let exempt = exempt || (self.allow_unknown && peer == Peer::Unknown);
        (!exempt).then_some(peer)
    }

    fn peer_at(&self, ip: IpAddr) -> Option<Peer> {
        let ip = ip.to_canonical();
        let exempt = self.exempt.iter().any(|(exempt, bits)| match exempt {
            Peer::V4(_) => ip.is_ipv4() && Peer::of(ip, *bits, 0) == *exempt,
            Peer::V6(_) => ip.is_ipv6() && Peer::of(ip, 0, *bits) == *exempt,
            Peer::User(_) | Peer::Unknown => false,
        });
        (!exempt).then(|| Peer::of(ip, self.v4_prefix, self.v6_prefix))
    }
}

impl Peer {
    fn of(address: IpAddr, v4_prefix: u8, v6_prefix: u8) -> Self {
        match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(u32::from(V4_BITS - v4_prefix)).unwrap_or(0);
                Self::V4(Ipv4Addr::from_bits(v4.to_bits() & mask).octets())
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(u32::from(V6_BITS - v6_prefix)).unwrap_or(0);
                Self::V6(Ipv6Addr::from_bits(v6.to_bits() & mask).octets())
            }
        }
    }
}

impl Shared {
    /// Counts a connection of a peer, if the limit allows it (P3).
    fn count(this: &Arc<Self>, peer: Peer) -> Result<PeerPermit, Rejection> {
        let rejected = || Err(Rejection::new(Cause::Peer, this.rules.refusal.clone()));
        let mut table = lock(&this.table);
        if table.count(peer) >= this.limit.load(Ordering::Relaxed) {
            return rejected();
        }
        if table.add(peer).is_ok() {
            return Ok(PeerPermit(Some((Arc::clone(this), peer))));
        }
        drop(table);
        this.table_full.fetch_add(1, Ordering::Relaxed);
        if this.rules.allow_when_table_full { Ok(PeerPermit(None)) } else { rejected() }
    }
}

impl Filter for PeerLimit {
    type Permit = PeerPermit;

    #[inline]
    fn reserve(&self) -> Reservation<PeerPermit> {
        Reservation::Granted(PeerPermit(None))
    }

    fn admit(&self, connection: &ConnectionInfo<'_>, permit: &mut PeerPermit) -> Result<(), Rejection> {
        if let Some(peer) = self.shared.rules.peer(connection) {
            *permit = Shared::count(&self.shared, peer)?;
        }
        Ok(())
    }

    fn needs_peer_addr(&self) -> bool {
        true
    }
}

impl Drop for PeerPermit {
    fn drop(&mut self) {
        if let Some((shared, peer)) = self.0.take() {
            lock(&shared.table).take(peer);
        }
    }
}

impl fmt::Debug for PeerLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerLimit")
            .field("limit", &self.limit())
            .field("rules", &self.shared.rules)
            .field("table_full_count", &self.table_full_count())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for PeerPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PeerPermit").field(&self.0.as_ref().map(|(_, peer)| *peer)).finish()
    }
}
