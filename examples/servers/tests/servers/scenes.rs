//! What can happen to a server.

use nix::sys::signal::Signal;

use crate::client::{Answer, Client};
use crate::crowd::Crowd;
use crate::server::Server;
use crate::{AtLimit, Program, Protocol, eventually};

const LIMIT: usize = 4;
const CLIENTS: usize = 200;
const LATER: usize = 5;
/// A few more than a server itself needs.
const DESCRIPTORS: usize = 64;
const TRIGGERS: [&str; 3] = ["level", "edge", "exclusive"];

/// The outage: clients at the limit, a crowd in the queue, half of which quits, a permit that is released, and newcomers.
pub(crate) fn flood(program: &Program) {
    for trigger in TRIGGERS {
        let arguments = ["--limit", &LIMIT.to_string(), "--trigger", trigger];
        let server = Server::start(program, &arguments);
        let mut held = server.connect_many(LIMIT);
        held.iter_mut().for_each(|client| assert_eq!(client.ask(), Answer::Served));
        match program.at_limit {
            AtLimit::Wait => crowd_waits(server, held),
            AtLimit::Refused => crowd_is_refused(server, held),
        }
    }
}

/// All that stay are answered as permits are released, without a further arrival.
fn crowd_waits(mut server: Server, held: Vec<Client>) {
    let clients = server.connect_many(CLIENTS);
    server.await_queued(CLIENTS);
    let staying = half_quits(clients);
    server.assert_sleeps();
    let mut crowd = Crowd::new(LIMIT, held);
    crowd.ask(staying);
    crowd.dismiss_one();
    crowd.await_full();
    crowd.ask(server.connect_many(LATER));
    crowd.serve_in_turns();
    server.end().assert_accepted(LIMIT + CLIENTS + LATER, 0);
}

/// Each client reads a 503 at once, and later ones are served.
fn crowd_is_refused(mut server: Server, mut held: Vec<Client>) {
    let refused = half_quits(server.connect_many(CLIENTS));
    for (number, mut client) in refused.into_iter().enumerate() {
        // Half of them have asked for nothing.
        let answer = if number % 2 == 0 { client.ask() } else { client.answer() };
        assert_eq!(answer, Answer::Refused);
    }
    server.assert_sleeps();
    held.iter_mut().for_each(|client| assert_eq!(client.ask(), Answer::Served, "as before"));
    drop(held);
    let mut tries = 0;
    for _ in 0..LATER {
        // A permit is released a moment after its client has closed: until then a client is refused, and asks again.
        eventually("a later client is served", || {
            tries += 1;
            server.connect().ask() == Answer::Served
        });
    }
    server.end().assert_accepted(LIMIT + LATER, CLIENTS + tries - LATER);
}

/// Every other client quits, alternately by a FIN and by a reset. Returns the others.
fn half_quits(clients: Vec<Client>) -> Vec<Client> {
    let mut staying = Vec::new();
    for (number, client) in clients.into_iter().enumerate() {
        match number % 4 {
            0 => drop(client),
            2 => client.reset(),
            _ => staying.push(client),
        }
    }
    staying
}

/// Out of descriptors, a server must not spin, exit or strand, and must serve on when descriptors become free.
pub(crate) fn exhausted(program: &Program) {
    for trigger in TRIGGERS {
        let mut server = Server::start_with_descriptors(program, DESCRIPTORS, &["--trigger", trigger]);
        let mut crowd = Crowd::new(server.room_below(DESCRIPTORS), Vec::new());
        crowd.ask(half_quits(server.connect_many(CLIENTS)));
        crowd.await_full();
        server.assert_sleeps();
        crowd.serve_in_turns();
        assert_eq!(server.connect().ask(), Answer::Served);
        let totals = server.end();
        totals.assert_accepted(CLIENTS + 1, 0);
        assert_ne!(totals.count("exhausted"), 0, "descriptors run out");
    }
}

/// No descriptor is left, and no connection that could be closed: only a timer retries.
pub(crate) fn recovered(program: &Program) {
    for trigger in TRIGGERS {
        let mut server = Server::start(program, &["--trigger", trigger]);
        server.limit_descriptors(3);
        let mut crowd = Crowd::new(CLIENTS, Vec::new());
        crowd.ask(half_quits(server.connect_many(CLIENTS)));
        server.assert_sleeps();
        server.await_queued(CLIENTS);
        server.limit_descriptors(1024);
        crowd.await_full();
        drop(crowd);
        server.end().assert_accepted(CLIENTS, 0);
    }
}

/// SIGTERM, while each client is in the middle of its request, and one is idle.
pub(crate) fn end_in_service(program: &Program) {
    let server = Server::start(program, &PATIENT);
    let mut idle = server.connect();
    assert_eq!(idle.ask(), Answer::Served);
    let silent = last_of_grpc(&server, program);
    let mut clients = server.connect_many(CLIENTS);
    clients.iter_mut().for_each(Client::begin);
    server.await_connections(CLIENTS + 1 + silent.len());
    server.signal(Signal::SIGTERM);
    clients.iter_mut().for_each(|client| assert_eq!(client.finish(), Answer::Served));
    drop(clients);
    let expected = CLIENTS + 1 + silent.len();
    drop(silent);
    idle.await_close();
    drop(idle);
    let totals = server.join();
    totals.assert_accepted(expected, 0);
    totals.assert_none_lost();
}

/// The service waits as long for the clients of a test, however slow the machine is.
const PATIENT: [&str; 2] = ["--within-ms", "30000"];

/// A client of gRPC that stays silent keeps the server from saying GOAWAY, which a client that has not sent its call yet
/// answers by asking elsewhere.
fn last_of_grpc(server: &Server, program: &Program) -> Vec<Client> {
    server.connect_many(usize::from(program.protocol == Protocol::Grpc))
}

/// SIGTERM, while all clients are queued: a SIGSTOP holds the server until both are there.
pub(crate) fn end_while_queued(program: &Program) {
    let server = Server::start(program, &PATIENT);
    server.stop();
    let mut clients = server.connect_many(CLIENTS);
    if program.protocol == Protocol::Http {
        // Half of them have begun to ask. A handshake of TLS would need the server.
        clients.iter_mut().step_by(2).for_each(Client::begin);
    }
    let silent = last_of_grpc(&server, program);
    server.await_queued(CLIENTS + silent.len());
    server.signal(Signal::SIGTERM);
    server.signal(Signal::SIGCONT);
    for (number, client) in clients.iter_mut().enumerate() {
        let has_begun = program.protocol == Protocol::Http && number % 2 == 0;
        let answer = if has_begun { client.finish() } else { client.ask() };
        assert_eq!(answer, Answer::Served);
    }
    let expected = CLIENTS + silent.len();
    drop((clients, silent));
    let totals = server.join();
    totals.assert_accepted(expected, 0);
    totals.assert_none_lost();
}
