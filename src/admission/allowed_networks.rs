//! The networks from which connections are accepted.

use std::net::IpAddr;

use ipnet::IpNet;
use thiserror::Error;

use super::connection_info::ConnectionInfo;
use super::filter::{Filter, Reservation};
use super::refusal::{Cause, Refusal, Rejection};

/// Admits connections by the network of their peer, given as CIDR prefixes.
///
/// A denied network is refused even inside an allowed one. Without an allowed network, every peer that is not denied is
/// admitted. An IPv4 network covers IPv4 peers of dual-stack listeners as well.
///
/// ```
/// use epoll_acceptor::AllowedNetworks;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let networks = AllowedNetworks::new().allow("10.0.0.0/8")?.allow("fd00::/8")?.deny("10.66.0.0/16")?;
/// assert!(networks.contains([10, 1, 2, 3].into()));
/// assert!(!networks.contains([10, 66, 2, 3].into()));
/// assert!(!networks.contains([192, 0, 2, 1].into()));
/// # Ok(())
/// # }
/// ```
///
/// Peers without an address, such as those of Unix sockets, are refused, unless
/// [`allow_unknown`](Self::allow_unknown) admits them.
#[derive(Clone, Debug)]
pub struct AllowedNetworks {
    allowed: Vec<IpNet>,
    denied: Vec<IpNet>,
    allow_unknown: bool,
    refusal: Refusal,
}

/// A text that is not a network.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` must be an address or a CIDR prefix, such as 10.0.0.0/8 or fd00::/8")]
pub struct InvalidNetwork(String);

impl AllowedNetworks {
    /// Creates a filter that admits every network.
    #[must_use]
    pub const fn new() -> Self {
        Self { allowed: Vec::new(), denied: Vec::new(), allow_unknown: false, refusal: Refusal::Reset }
    }

    /// Admits a network. Once any network is allowed, all others are refused.
    ///
    /// # Errors
    ///
    /// [`InvalidNetwork`] if the text is neither an address nor a CIDR prefix.
    pub fn allow(mut self, network: &str) -> Result<Self, InvalidNetwork> {
        self.allowed.push(parse(network)?);
        Ok(self)
    }

    /// Refuses a network.
    ///
    /// # Errors
    ///
    /// As [`allow`](Self::allow).
    pub fn deny(mut self, network: &str) -> Result<Self, InvalidNetwork> {
        self.denied.push(parse(network)?);
        Ok(self)
    }

    /// Admits connections without an address, such as those of Unix sockets.
    #[must_use]
    pub const fn allow_unknown(mut self) -> Self {
        self.allow_unknown = true;
        self
    }

    /// Sets how other peers are refused; the default is a reset.
    #[must_use]
    pub fn refusal(mut self, refusal: Refusal) -> Self {
        self.refusal = refusal;
        self
    }

    /// Returns whether connections from this address are admitted.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let within = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&address));
        !within(&self.denied) && (self.allowed.is_empty() || within(&self.allowed))
    }
}

/// A bare address is a network of one address. Bits beyond the prefix are ignored.
fn parse(text: &str) -> Result<IpNet, InvalidNetwork> {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    let network: IpNet = text.parse().or_else(|_| address()).map_err(|_| InvalidNetwork(text.to_owned()))?;
    match network {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => match v6.addr().to_ipv4_mapped() {
            Some(v4) => Ok(IpNet::new_assert(v4.into(), v6.prefix_len() - 96).trunc()),
            None => Ok(network.trunc()),
        },
        _ => Ok(network.trunc()),
    }
}

impl Default for AllowedNetworks {
    fn default() -> Self {
        Self::new()
    }
}

impl Filter for AllowedNetworks {
    type Permit = ();

    fn reserve(&self) -> Reservation<()> {
        Reservation::Granted(())
    }

    fn admit(&self, connection: &ConnectionInfo<'_>, (): &mut ()) -> Result<(), Rejection> {
        match connection.peer().map_or(self.allow_unknown, |peer| self.contains(peer.ip())) {
            true => Ok(()),
            false => Err(Rejection::new(Cause::Network, self.refusal.clone())),
        }
    }

    fn needs_peer_addr(&self) -> bool {
        true
    }
}
