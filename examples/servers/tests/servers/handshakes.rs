//! Handshakes of TLS that are never ended.

use crate::client::Answer;
use crate::hyper_rustls::PROGRAM;
use crate::server::Server;

/// Silent clients take the stage of handshakes, and no more: others are served when their time is over.
#[test]
fn silent_clients_do_not_keep_others_out() {
    let arguments = ["--limit", "1000", "--handshakes", "8", "--handshake-ms", "100"];
    let server = Server::start(&PROGRAM, &arguments);
    let silent = server.connect_many(40);
    for _ in 0..5 {
        assert_eq!(server.connect().ask(), Answer::Served);
    }
    drop(silent);
    server.end();
}
