//! Clients that send much, read late, or break off.

use std::thread;
use std::time::Duration;

use crate::client::Client;
use crate::server::Server;

/// More than the socket buffers of both sides hold together.
const MUCH: usize = 64 << 20;

fn pattern(length: usize) -> Vec<u8> {
    (0_u8..=250).cycle().take(length).collect()
}

/// Sends until nothing goes any more for a while; tells how much went.
fn send_until_stuck(client: &Client, bytes: &[u8]) -> usize {
    let (mut sent, mut stuck) = (0, 0);
    while stuck < 50 && sent < bytes.len() {
        match client.send_some(&bytes[sent..]) {
            0 => {
                stuck += 1;
                thread::sleep(Duration::from_millis(2));
            }
            length => (sent, stuck) = (sent + length, 0),
        }
    }
    sent
}

#[test]
fn who_does_not_read_cannot_send_for_ever_and_loses_nothing() {
    for listen in ["127.0.0.1:0", &crate::flood::unix_address()] {
        let mut server = Server::start(listen, &[]);
        let (client, bytes) = (Client::connect(&server.address), pattern(MUCH));
        let sent = send_until_stuck(&client, &bytes);
        assert!(sent < MUCH, "the server does not hoard");
        server.assert_sleeps();

        let other = Client::ask(&server.address);
        other.await_echo();
        other.reset();

        client.send_no_more();
        assert!(client.read_all() == bytes[..sent], "everything comes back in order, and then the end");
        client.close();
        server.await_rest();
        server.end();
    }
}

#[test]
fn who_breaks_off_harms_nobody() {
    let server = Server::start("127.0.0.1:0", &["--limit", "1"]);
    let bytes = pattern(MUCH);
    for _ in 0..20 {
        // With a chunk in the server's hands, and more in its buffers.
        let rude = Client::connect(&server.address);
        while rude.send_some(&bytes) != 0 {}
        rude.reset();
    }
    let polite = Client::ask(&server.address);
    polite.await_echo();
    polite.close();
    server.await_rest();
    assert_eq!(server.end().count("delivered"), 21);
}
