//! What the servers share: their command line, where their listener comes from, and a connection for loops that must not
//! block.

pub mod exchange;

use std::error::Error;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use epoll_acceptor::{Pending, Refusal, Trigger, handover};
use lexopt::prelude::*;

/// The options of a server.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where it serves its metrics.
    pub metrics: SocketAddr,
    /// How its listener is registered.
    pub trigger: Trigger,
    /// The most connections at once.
    pub limit: u32,
    /// The most TLS handshakes at once.
    pub handshakes: u32,
    /// The time for a TLS handshake.
    pub handshake_timeout: Duration,
    /// The most connections of one peer.
    pub per_peer: Option<u32>,
    /// How long the service may take to end.
    pub within: Duration,
}

/// Reads the command line.
///
/// # Errors
///
/// For an unknown option, or a wrong value.
pub fn options() -> Result<Options, Box<dyn Error>> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut options = Options {
        listen: any,
        metrics: any,
        trigger: Trigger::Level,
        limit: 10_000,
        handshakes: 200,
        handshake_timeout: Duration::from_secs(10),
        per_peer: None,
        within: Duration::from_secs(5),
    };
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("listen") => options.listen = arguments.value()?.parse()?,
            Long("metrics") => options.metrics = arguments.value()?.parse()?,
            Long("trigger") => options.trigger = arguments.value()?.parse()?,
            Long("limit") => options.limit = arguments.value()?.parse()?,
            Long("handshakes") => options.handshakes = arguments.value()?.parse()?,
            Long("handshake-ms") => {
                options.handshake_timeout = Duration::from_millis(arguments.value()?.parse()?);
            }
            Long("per-peer") => options.per_peer = Some(arguments.value()?.parse()?),
            Long("within-ms") => options.within = Duration::from_millis(arguments.value()?.parse()?),
            _ => return Err(argument.unexpected().into()),
        }
    }
    Ok(options)
}

/// Returns the listener, and what becomes of its queue when the service ends.
///
/// A service manager that holds the socket (systemd, by `LISTEN_FDS`) passes it to the next process, and the queue with it.
///
/// # Errors
///
/// If the address cannot be bound, or what was passed is not one TCP listener.
pub fn listener(options: &Options) -> io::Result<(TcpListener, Pending)> {
    let mut inherited = inherited()?;
    match (inherited.pop(), inherited.len()) {
        (None, _) => Ok((TcpListener::bind(options.listen)?, Pending::Serve(Refusal::Close))),
        (Some(listener), 0) => Ok((listener, Pending::Keep)),
        _ => Err(io::Error::other("several listeners were passed; this server accepts from one")),
    }
}

/// Returns the listeners that a service manager passed.
///
/// # Errors
///
/// If what was passed is not a TCP listener.
pub fn inherited() -> io::Result<Vec<TcpListener>> {
    #[allow(unsafe_code, reason = "descriptors by number")]
    // SAFETY: called once, at the beginning; nothing else here takes descriptors that it has not opened.
    let mut inherited = unsafe { handover::from_env() }?;
    let names: Vec<_> = inherited.names().map(str::to_owned).collect();
    names.iter().map(|name| inherited.take_tcp(name)).collect()
}
