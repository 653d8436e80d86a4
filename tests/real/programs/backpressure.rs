//! Clients that send much, read late, or reset.

use std::thread;
use std::time::Duration;

use crate::client::Client;
use crate::server::Server;

/// More than the socket buffers of both sides together.
const MUCH: usize = 64 << 20;

fn pattern(length: usize) -> Vec<u8> {
    (0_u8..=250).cycle().take(length).collect()
}

/// Sends until the socket has been unwritable for a while. Returns how much was sent.
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
fn client_that_does_not_read_is_throttled() {
    for listen in ["127.0.0.1:0", &crate::flood::unix_address()] {
        let mut server = Server::start(listen, &[]);
        let (client, bytes) = (Client::connect(&server.address), pattern(MUCH));
        let sent = send_until_stuck(&client, &bytes);
        assert!(sent < MUCH, "the server buffers little");
        server.assert_sleeps();

        let other = Client::ask(&server.address);
        other.await_echo();
        other.reset();

        client.shutdown_write();
        assert!(client.read_all() == bytes[..sent], "everything comes back in order, then end of file");
        client.close();
        server.await_idle();
        server.end();
    }
}

#[test]
fn resets_release_their_permit() {
    let server = Server::start("127.0.0.1:0", &["--limit", "1"]);
    let bytes = pattern(MUCH);
    for _ in 0..20 {
        // With a chunk pending in the server, and more in the socket buffers.
        let resetting = Client::connect(&server.address);
        while resetting.send_some(&bytes) != 0 {}
        resetting.reset();
    }
    let client = Client::ask(&server.address);
    client.await_echo();
    client.close();
    server.await_idle();
    assert_eq!(server.end().count("delivered"), 21);
}
