//! Servers with acceptors of epoll-acceptor: below the limit none of them strands a connection.

use std::env;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::process::Command;

use epoll_acceptor::{Acceptor, Epoll, Events, Gate, Token, Trigger};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::clients::Endpoint;
use crate::server::{Server, path};
use crate::tool::{NO_FAULT, await_verdict, each, wait_until};

const CONFIG_VAR: &str = "ACCEPTQ_TEST_SERVER";
const LISTENER: Token = Token(0);

/// Starts this test binary as a server.
pub(crate) fn start(trigger: Trigger, family: &str, limit: u32) -> Server {
    let path = path();
    let address = match family {
        "tcp6" => "::1",
        "unix" => &path,
        _ => "127.0.0.1",
    };
    let config = format!("{} {family} {address} {limit}", trigger_name(trigger));
    let mut command = Command::new(env::current_exe().expect("this binary"));
    command.args(["--exact", "acceptors::server_process", "--nocapture"]).env(CONFIG_VAR, config);
    Server::spawn(&mut command, address)
}

fn trigger_name(trigger: Trigger) -> &'static str {
    match trigger {
        Trigger::Edge => "edge",
        Trigger::Exclusive => "exclusive",
        _ => "level",
    }
}

/// The server in the child process. Without its environment variable it does nothing.
#[test]
fn server_process() {
    let Ok(config) = env::var(CONFIG_VAR) else { return };
    let words: Vec<&str> = config.split(' ').collect();
    let [trigger, family, address, limit] = words[..] else { panic!("{config}") };
    let trigger = match trigger {
        "edge" => Trigger::Edge,
        "exclusive" => Trigger::Exclusive,
        _ => Trigger::Level,
    };
    let listener = listen(family, address);
    let port = listener.local_addr().expect("it is bound").as_socket().map_or(0, |address| address.port());
    let gate = Gate::new(limit.parse().expect("a number"));
    let epoll = Epoll::new().expect("an epoll");
    let listener = OwnedFd::from(listener);
    let acceptor = trigger.on(listener).gate(&gate).register(&epoll, LISTENER).expect("registered");
    serve(acceptor, &epoll, port);
}

fn serve(mut acceptor: impl Acceptor, epoll: &Epoll, port: u16) {
    println!("\n{port}");
    std::io::stdout().flush().expect("the parent reads stdout");
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
fn acceptor_at_limit_is_backpressure() {
    each([Trigger::Level, Trigger::Edge, Trigger::Exclusive], |trigger| {
        each(families(), |family| {
            let server = start(trigger, family, 1);
            let _held = server.hold_one();
            let _clients = server.connect_while_stopped(4);
            let report = await_verdict(&server.target(), "at_limit");
            assert_eq!(report["queued"], 4, "{trigger:?} {family}: {report:#}");
            assert_eq!(report["kind"], family);
            assert_eq!(report["cause"], "disarmed", "{trigger:?} {family}: {report:#}");
        });
    });
}

#[test]
fn acceptor_with_limit_zero_is_not_resumed() {
    let server = start(Trigger::Level, "tcp", 0);
    let _clients = server.endpoint.connect_many(3);
    let report = await_verdict(&server.target(), "not_accepting");
    assert_eq!(report["cause"], "not_resumed");
    // An operator can still raise the limit, which is not visible: the explanation mentions that.
    assert!(report["otherwise"].as_str().is_some_and(|text| text.contains("an operator")), "{report:#}");
}

#[test]
fn acceptor_below_limit_is_healthy() {
    each(
        [(Trigger::Level, "level"), (Trigger::Edge, "edge"), (Trigger::Exclusive, "exclusive")],
        |(trigger, name)| {
            let server = start(trigger, "tcp", 100);
            let _clients = server.connect_while_stopped(20);
            let report = await_verdict(&server.target(), NO_FAULT);
            assert_eq!(report["trigger"], name);
            wait_until("all are accepted", || crate::tool::queued(&server.target()) == 0);
            assert!(matches!(server.endpoint, Endpoint::Tcp(_)));
        },
    );
}
