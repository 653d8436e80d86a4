//! What the servers share: their command line.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use lexopt::prelude::*;

/// The options of a server.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The most connections at once.
    pub limit: u32,
    /// The most TLS handshakes at once.
    pub handshakes: u32,
    /// The time for a TLS handshake.
    pub handshake_timeout: Duration,
}

/// How long a service may take to end.
pub const WITHIN: Duration = Duration::from_secs(5);

/// Reads the command line.
///
/// # Errors
///
/// For an unknown option, or a wrong value.
pub fn options() -> Result<Options, Box<dyn Error>> {
    let mut options = Options {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        limit: 10_000,
        handshakes: 200,
        handshake_timeout: Duration::from_secs(10),
    };
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("listen") => options.listen = arguments.value()?.parse()?,
            Long("limit") => options.limit = arguments.value()?.parse()?,
            Long("handshakes") => options.handshakes = arguments.value()?.parse()?,
            Long("handshake-ms") => {
                options.handshake_timeout = Duration::from_millis(arguments.value()?.parse()?);
            }
            _ => return Err(argument.unexpected().into()),
        }
    }
    Ok(options)
}
