//! Servers on this crate's acceptors: whatever they do, nobody is left behind as long as there is room.

use std::env;
use std::io::Write;
use std::process::Command;

use epoll_acceptor::{Acceptor, AnyListener, Epoll, Events, Gate, Token, Trigger};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::clients::Door;
use crate::server::{Server, path};
use crate::tool::{await_verdict, wait_until};

const PLAN: &str = "ACCEPTQ_TEST_SERVER";
const LISTENER: Token = Token(0);

/// Starts this very binary as a server.
pub(crate) fn start(trigger: Trigger, family: &str, limit: u32) -> Server {
    let path = path();
    let address = match family {
        "tcp6" => "::1",
        "unix" => &path,
        _ => "127.0.0.1",
    };
    let plan = format!("{} {family} {address} {limit}", trigger_name(trigger));
    let mut command = Command::new(env::current_exe().expect("this binary"));
    command.args(["--exact", "ours::as_the_server", "--nocapture"]).env(PLAN, plan);
    Server::spawn(&mut command, address)
}

fn trigger_name(trigger: Trigger) -> &'static str {
    match trigger {
        Trigger::Edge => "edge",
        Trigger::Exclusive => "exclusive",
        _ => "level",
    }
}

/// Not a test, but the child of one; without its plan it has nothing to do.
#[test]
fn as_the_server() {
    let Ok(plan) = env::var(PLAN) else { return };
    let words: Vec<&str> = plan.split(' ').collect();
    let [trigger, family, address, limit] = words[..] else { panic!("{plan}") };
    let trigger = match trigger {
        "edge" => Trigger::Edge,
        "exclusive" => Trigger::Exclusive,
        _ => Trigger::Level,
    };
    let listener = listen(family, address);
    let port = listener.local_addr().expect("it is bound").as_socket().map_or(0, |address| address.port());
    let gate = Gate::new(limit.parse().expect("a number"));
    let epoll = Epoll::new().expect("an epoll");
    let listener = AnyListener(listener);
    let acceptor = trigger.on(listener).gate(&gate).register(&epoll, LISTENER).expect("registered");
    serve(acceptor, &epoll, port);
}

fn serve(mut acceptor: impl Acceptor, epoll: &Epoll, port: u16) {
    println!("\n{port}");
    std::io::stdout().flush().expect("somebody reads");
    let mut events = Events::with_capacity(16).expect("room");
    let mut held = Vec::new();
    loop {
        epoll.wait(&mut events, None).expect("a wait");
        for event in &mut events {
            assert_eq!(event.token(), LISTENER);
            held.extend(acceptor.ready().map(|connection| connection.expect("a live listener")));
        }
    }
}

fn listen(family: &str, address: &str) -> Socket {
    let (domain, protocol) = match family {
        "tcp6" => (Domain::IPV6, None),
        "unix" => (Domain::UNIX, None),
        "mptcp" => (Domain::IPV4, Some(Protocol::MPTCP)),
        _ => (Domain::IPV4, None),
    };
    let socket = Socket::new(domain, Type::STREAM, protocol).expect("a socket");
    let address = match address.parse::<std::net::IpAddr>() {
        Ok(ip) => SockAddr::from(std::net::SocketAddr::new(ip, 0)),
        Err(_) => SockAddr::unix(address).expect("a short path"),
    };
    socket.bind(&address).expect("bound");
    socket.listen(64).expect("listening");
    socket
}

fn families() -> Vec<&'static str> {
    let mut families = vec!["tcp", "tcp6", "unix", "mptcp"];
    if let Err(error) = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP)) {
        crate::tool::skip!("MPTCP, which this kernel does not have: {error}");
        families.pop();
    }
    families
}

#[test]
fn full_means_backpressure_and_nothing_else() {
    for trigger in [Trigger::Level, Trigger::Edge, Trigger::Exclusive] {
        for family in families() {
            let server = start(trigger, family, 1);
            let _held = server.hold_one();
            let _crowd = server.surprise(4);
            let said = await_verdict(&server.target(), "backpressure");
            assert_eq!(said["queued"], 4, "{trigger:?} {family}: {said:#}");
            assert_eq!(said["kind"], family);
            assert_eq!(said["cause"], "silenced", "{trigger:?} {family}: {said:#}");
        }
    }
}

#[test]
fn a_limit_of_zero_is_a_pause_that_no_connection_will_end() {
    let server = start(Trigger::Level, "tcp", 0);
    let _crowd = server.door.connect_many(3);
    let said = await_verdict(&server.target(), "stranded");
    assert_eq!(said["cause"], "not_resumed");
    // Only an order will, and nobody outside knows of that: so it is said.
    assert!(said["explanation"].as_str().is_some_and(|text| text.contains("an order")), "{said:#}");
}

#[test]
fn with_room_it_is_healthy() {
    for (trigger, name) in
        [(Trigger::Level, "level"), (Trigger::Edge, "edge"), (Trigger::Exclusive, "exclusive")]
    {
        let server = start(trigger, "tcp", 100);
        let _crowd = server.surprise(20);
        let said = await_verdict(&server.target(), "healthy");
        assert_eq!(said["trigger"], name);
        wait_until("all are taken", || crate::tool::queued(&server.target()) == 0);
        assert!(matches!(server.door, Door::Tcp(_)));
    }
}
