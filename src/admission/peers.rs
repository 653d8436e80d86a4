//! How many connections of one peer may be in service.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::bell::Bell;
use super::newcomer::ConnectionInfo;
use super::policy::{Admission, Line, Reserve, Until};
use super::refusal::{Cause, Refusal, Rejection};
use super::sync::{Arc, AtomicU64, Mutex, Ordering, lock};
use super::table::Table;

/// At most so many connections of each peer in service, over all acceptors that share it. Clones are the same limit.
///
/// A peer is a v4 address, a v6 network of 64 bits, or the user at the other end of a Unix socket. Whoever comes when
/// its peer has as many as it may is refused, by a reset unless [`refusal`](Self::refusal) says otherwise. Nobody is
/// made to wait: who it is is known after the accept only, and an accepted connection cannot be put back into the
/// queue.
///
/// ```
/// use epoll_acceptor::{Admission, Gate, PeerLimit, Trigger};
///
/// let gate = Gate::new(10_000);
/// let peers = PeerLimit::new(20).capacity(10_000).exempt([127, 0, 0, 0].into(), 8);
/// let policy = gate.clone().and(peers.clone());
/// # let _ = (policy, Trigger::Level);
/// assert_eq!(peers.peers(), 0, "nobody is in service yet");
/// ```
///
/// ## Bounded memory
///
/// Only peers with connections in service are remembered, in a table that is allocated here and never grows: for 16,384
/// peers unless [`capacity`](Self::capacity) says otherwise. Where a [`Gate`](super::Gate) limits the connections its
/// limit is enough. The connection of a further peer is refused, or let in uncounted by
/// [`allow_when_table_full`](Self::allow_when_table_full); [`table_full_count`](Self::table_full_count) counts them in either case. The table's
/// hash is keyed, so that nobody can choose addresses that make it slow.
///
/// ## An address is not a person
///
/// Behind one v4 address may be thousands of people (NAT), a v6 customer has 65,536 networks of 64 bits if it was given
/// a /48 ([`v6_prefix`](Self::v6_prefix)), and whoever comes through a proxy has the proxy's address
/// ([`exempt`](Self::exempt) it): [what to do about each](crate::guide::overload#a-limit-for-each-peer-and-nat).
///
/// ## Those that nobody knows
///
/// Peers without address and credentials (no listener of this crate has such) are one peer together, or
/// [let in](Self::allow_unknown).
///
/// ## Builders begin anew
///
/// The methods that take `self` give a new limit that counts nobody yet, unless this is its only handle. Build first,
/// and clone then.
#[derive(Clone)]
pub struct PeerLimit {
    shared: Arc<Shared>,
}

struct Shared {
    rules: Rules,
    table: Mutex<Table<Peer>>,
    table_full_count: AtomicU64,
}

#[derive(Clone, Debug)]
struct Rules {
    limit: u32,
    v4_prefix: u8,
    v6_prefix: u8,
    capacity: usize,
    exempt: Vec<(Peer, u8)>,
    allow_unknown: bool,
    allow_when_table_full: bool,
    refusal: Refusal,
}

/// Whose connections are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Peer {
    V4([u8; 4]),
    V6([u8; 16]),
    User(u32),
    Unknown,
}

/// The place of a connection among those of its peer, given back when dropped. Empty until the connection was let in,
/// and for those that are not counted.
#[must_use = "dropping it gives the place back"]
pub struct PeerPermit(Option<(Arc<Shared>, Peer)>);

const V4_BITS: u8 = 32;
const V6_BITS: u8 = 128;
const CAPACITY: usize = 16_384;

impl PeerLimit {
    /// At most so many of each peer. 0 keeps everybody out but those who are exempt.
    #[must_use]
    pub fn new(limit: u32) -> Self {
        Self::with(Rules {
            limit,
            v4_prefix: V4_BITS,
            v6_prefix: 64,
            capacity: CAPACITY,
            exempt: Vec::new(),
            allow_unknown: false,
            allow_when_table_full: false,
            refusal: Refusal::Reset,
        })
    }

    /// Counts v4 addresses together that have so many leading bits in common: 32 unless said otherwise.
    ///
    /// # Panics
    ///
    /// If it is more than 32.
    #[must_use]
    pub fn v4_prefix(self, bits: u8) -> Self {
        assert!(bits <= V4_BITS, "a v4 address has {V4_BITS} bits");
        self.changed(|rules| rules.v4_prefix = bits)
    }

    /// Counts v6 addresses together that have so many leading bits in common: 64 unless said otherwise.
    ///
    /// # Panics
    ///
    /// If it is more than 128.
    #[must_use]
    pub fn v6_prefix(self, bits: u8) -> Self {
        assert!(bits <= V6_BITS, "a v6 address has {V6_BITS} bits");
        self.changed(|rules| rules.v6_prefix = bits)
    }

    /// Remembers so many peers at the most: 16,384 unless said otherwise. The table takes 48 to 96 bytes for each, from
    /// the beginning.
    ///
    /// # Panics
    ///
    /// If it is 0, or so large that the size of the table overflows. (A failed allocation aborts the process.)
    #[must_use]
    pub fn capacity(self, peers: usize) -> Self {
        assert!(peers > 0, "a table for no peers lets nobody in: take 1 or more");
        let mut rules = self.shared.rules.clone();
        rules.capacity = peers;
        Self::with(rules)
    }

    /// Lets peers in, and does not count them, whose address begins with the same `bits` bits as this one. A v4 address
    /// goes for v4 peers of dual-stack listeners as well.
    ///
    /// # Panics
    ///
    /// If the address has fewer bits.
    #[must_use]
    pub fn exempt(self, address: IpAddr, bits: u8) -> Self {
        let (address, bits) = match address {
            IpAddr::V6(v6) if bits >= 96 => match v6.to_ipv4_mapped() {
                Some(v4) => (IpAddr::V4(v4), bits - 96),
                None => (address, bits),
            },
            address => (address, bits),
        };
        let most = if address.is_ipv4() { V4_BITS } else { V6_BITS };
        assert!(bits <= most, "{address} has {most} bits");
        self.changed(|rules| rules.exempt.push((Peer::of(address, bits, bits), bits)))
    }

    /// Lets this user of a Unix socket in uncounted.
    #[must_use]
    pub fn exempt_user(self, uid: u32) -> Self {
        self.changed(|rules| rules.exempt.push((Peer::User(uid), 0)))
    }

    /// Lets peers in uncounted that nothing is known of, instead of taking them for one.
    #[must_use]
    pub fn allow_unknown(self) -> Self {
        self.changed(|rules| rules.allow_unknown = true)
    }

    /// Lets peers in uncounted for whom the table has no room, instead of refusing them.
    #[must_use]
    pub fn allow_when_table_full(self) -> Self {
        self.changed(|rules| rules.allow_when_table_full = true)
    }

    /// How whoever exceeds the limit is told: by a reset unless said otherwise, which leaves no TIME_WAIT behind on
    /// this side.
    #[must_use]
    pub fn refusal(self, refusal: Refusal) -> Self {
        self.changed(|rules| rules.refusal = refusal)
    }

    /// How many of each peer may be in service.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.shared.rules.limit
    }

    /// How many peers have connections in service that are counted.
    #[must_use]
    pub fn peers(&self) -> usize {
        lock(&self.shared.table).keys()
    }

    /// How many connections were refused, or let in uncounted, because the table had no room.
    #[must_use]
    pub fn table_full_count(&self) -> u64 {
        self.shared.table_full_count.load(Ordering::Relaxed)
    }

    fn with(rules: Rules) -> Self {
        let table = Mutex::new(Table::new(rules.capacity));
        Self { shared: Arc::new(Shared { rules, table, table_full_count: AtomicU64::new(0) }) }
    }

    fn changed(mut self, change: impl FnOnce(&mut Rules)) -> Self {
        // A permit holds the shared part as well: the only handle counts nobody.
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            change(&mut shared.rules);
            shared.table_full_count = AtomicU64::new(0);
            return self;
        }
        let mut rules = self.shared.rules.clone();
        change(&mut rules);
        Self::with(rules)
    }
}

impl Rules {
    /// Whose connection it is, if it is to be counted.
    fn peer(&self, newcomer: &dyn ConnectionInfo) -> Option<Peer> {
        let peer = match newcomer.peer() {
            Some(address) => {
                let ip = address.ip().to_canonical();
                if self.is_exempt(ip) {
                    return None;
                }
                return Some(Peer::of(ip, self.v4_prefix, self.v6_prefix));
            }
            None => newcomer.credentials().map_or(Peer::Unknown, |credentials| Peer::User(credentials.uid)),
        };
        let exempt = self.exempt.iter().any(|(exempt, _)| *exempt == peer);
        let exempt = exempt || (self.allow_unknown && peer == Peer::Unknown);
        (!exempt).then_some(peer)
    }

    fn is_exempt(&self, ip: IpAddr) -> bool {
        self.exempt.iter().any(|(exempt, bits)| match exempt {
            Peer::V4(_) => ip.is_ipv4() && Peer::of(ip, *bits, 0) == *exempt,
            Peer::V6(_) => ip.is_ipv6() && Peer::of(ip, 0, *bits) == *exempt,
            Peer::User(_) | Peer::Unknown => false,
        })
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
    /// Counts a connection of a peer, if it may come in. `Ok(false)` if it may and is not counted.
    fn count(&self, peer: Peer) -> Result<bool, Rejection> {
        let denied = || Err(Rejection::new(Cause::Peer, self.rules.refusal.clone()));
        let mut table = lock(&self.table);
        if table.count(peer) >= self.rules.limit {
            return denied();
        }
        if table.add(peer).is_ok() {
            return Ok(true);
        }
        drop(table);
        self.table_full_count.fetch_add(1, Ordering::Relaxed);
        if self.rules.allow_when_table_full { Ok(false) } else { denied() }
    }
}

impl Admission for PeerLimit {
    type Permit = PeerPermit;

    fn reserve(&self) -> Reserve<PeerPermit> {
        Reserve::Room(PeerPermit(None))
    }

    fn never_waits(&self) -> bool {
        true
    }

    fn admit(&self, newcomer: &dyn ConnectionInfo, permit: &mut PeerPermit) -> Result<(), Rejection> {
        if let Some(peer) = self.shared.rules.peer(newcomer) {
            if self.shared.count(peer)? {
                // What it held before, if anything, is given back.
                *permit = PeerPermit(Some((Arc::clone(&self.shared), peer)));
            }
        }
        Ok(())
    }

    fn wants_peer(&self) -> bool {
        true
    }

    fn cancel(&self, permit: PeerPermit) {
        drop(permit);
    }

    /// Nobody stands in line for a peer.
    fn stand(&self, _: &Arc<Bell>, until: Until) -> Line {
        until.without_a_line()
    }

    fn leave(&self, _: &Arc<Bell>) -> Option<PeerPermit> {
        None
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
