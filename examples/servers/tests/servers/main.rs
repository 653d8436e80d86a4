//! The servers as processes, with real clients: sockets, rustls, tonic, curl, wrk, h2load and openssl.
//!
//! Tests read counters and states, in `/proc` and as the servers print them; each wait has a bound.

mod client;
mod crowd;
mod handshakes;
mod restart;
mod scenes;
mod scrape;
mod server;
mod tools;

use std::thread;
use std::time::{Duration, Instant};

/// A timeout that no passing test reaches, even on a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// What a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Http,
    Https,
    Grpc,
}

/// What happens to clients above the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AtLimit {
    Wait,
    /// They read a 503.
    Refused,
}

/// A server, and how it differs from the others.
#[derive(Debug)]
struct Program {
    path: &'static str,
    protocol: Protocol,
    at_limit: AtLimit,
    /// How many listeners it takes from a service manager.
    listeners: usize,
}

/// The matrix of servers and scenes: for each server a module, in it a test for each scene.
macro_rules! matrix {
    ($($server:ident($protocol:ident, $at_limit:ident, $listeners:literal);)*) => {$(
        mod $server {
            use crate::{AtLimit, Program, Protocol, restart, scenes, tools};

            pub(crate) const PROGRAM: Program = Program {
                path: env!(concat!("CARGO_BIN_EXE_", stringify!($server))),
                protocol: Protocol::$protocol,
                at_limit: AtLimit::$at_limit,
                listeners: $listeners,
            };

            #[test]
            fn flood_leaves_no_client_stranded() {
                scenes::flood(&PROGRAM);
            }

            #[test]
            fn exhausted_descriptors_are_outlasted() {
                scenes::exhausted(&PROGRAM);
            }

            #[test]
            fn descriptors_that_come_back_are_noticed() {
                scenes::recovered(&PROGRAM);
            }

            #[test]
            fn end_resets_no_client_in_service() {
                scenes::end_in_service(&PROGRAM);
            }

            #[test]
            fn end_resets_no_queued_client() {
                scenes::end_while_queued(&PROGRAM);
            }

            #[test]
            fn restart_loses_no_client() {
                restart::under_load(&PROGRAM);
            }

            #[test]
            fn tools_see_no_failure() {
                tools::see_no_failure(&PROGRAM);
            }
        }
    )*};
}

matrix! {
    axum(Http, Refused, 1);
    hyper_rustls(Https, Wait, 1);
    metrics(Http, Refused, 1);
    mio(Http, Wait, 1);
    per_core(Http, Wait, 2);
    polling(Http, Wait, 1);
    threads(Http, Wait, 1);
    tonic(Grpc, Wait, 1);
}

/// Polls until the condition holds.
#[track_caller]
fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_true() {
        assert!(begin.elapsed() < LONG, "timed out: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}
