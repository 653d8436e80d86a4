//! `axum::serve` with an acceptor.

use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::get;
use axum::serve::ListenerExt;
use epoll_acceptor::group::Group;
use epoll_acceptor::socket::accept_queue;
use epoll_acceptor::{AsyncAcceptor, Control, Gate, LevelTriggered, Pending, Refusal, WhenFull};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use crate::{LONG, connect, listen, request, response, runtime, wait_until, wait_until_stopped};

/// A server on a runtime of its own.
struct Server {
    address: SocketAddr,
    gate: Gate,
    control: Control,
    terminate: Option<oneshot::Sender<()>>,
    ended: tokio::task::JoinHandle<std::io::Result<()>>,
    runtime: Runtime,
}

fn app() -> axum::extract::connect_info::IntoMakeServiceWithConnectInfo<Router, SocketAddr> {
    let peer = async |ConnectInfo(peer): ConnectInfo<SocketAddr>| peer.to_string();
    Router::new().route("/", get(peer)).into_make_service_with_connect_info::<SocketAddr>()
}

impl Server {
    fn start(gate: &Gate, within: Duration) -> Self {
        Self::start_with(gate, Refusal::Close, within)
    }

    /// Starts one that refuses in this way what is pending at its end, after `within`.
    fn start_with(gate: &Gate, refusal: Refusal, within: Duration) -> Self {
        let runtime = runtime();
        let (listener, address) = listen();
        let acceptor: AsyncAcceptor<TcpListener> =
            runtime.block_on(async { LevelTriggered::on(listener).gate(gate).build_tokio() }).unwrap();
        let control = acceptor.control();
        let (terminate, terminated) = oneshot::channel::<()>();
        let signal = async { drop(terminated.await) };
        let ended = acceptor.end_on(signal, Pending::Serve(refusal), within);
        let server = axum::serve(acceptor.tap_io(|_| {}), app()).with_graceful_shutdown(ended);
        let ended = runtime.spawn(async move { server.await });
        Self { address, gate: gate.clone(), control, terminate: Some(terminate), ended, runtime }
    }

    /// The signal.
    fn terminate(&mut self) {
        drop(self.terminate.take());
    }

    /// Waits for the end of the service.
    fn join(self) {
        let ended = async { tokio::time::timeout(LONG, self.ended).await };
        self.runtime.block_on(ended).expect("the server ends").unwrap().unwrap();
        assert!(self.gate.wait_idle(Some(LONG)), "P4");
    }
}

#[test]
fn requests_are_answered_and_the_peer_is_known() {
    let mut server = Server::start(&Gate::new(10), LONG);
    for _ in 0..100 {
        let client = connect(server.address);
        request(&client);
        let text = response(&client).unwrap();
        assert!(text.ends_with(&client.local_addr().unwrap().to_string()), "{text}");
    }
    server.terminate();
    server.join();
}

#[test]
fn full_server_answers_503() {
    const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let gate = Gate::builder(2).when_full(WhenFull::Shed(Refusal::message(BUSY))).build();
    let mut server = Server::start(&gate, LONG);
    let held = [connect(server.address), connect(server.address)];
    wait_until(&server.control, |control| control.counters().delivered == 2);
    for _ in 0..5 {
        let client = connect(server.address);
        assert_eq!(response(&client).unwrap(), BUSY);
    }
    for client in held {
        request(&client);
        assert!(response(&client).unwrap().starts_with("HTTP/1.1 200 "));
    }
    server.terminate();
    server.join();
}

/// The outage: clients at the limit, a crowd in the queue, half of which leaves, and a permit that is released.
#[test]
fn flood_leaves_no_client_stranded() {
    let mut server = Server::start(&Gate::new(10), LONG);
    let mut held: Vec<_> = (0..10).map(|_| connect(server.address)).collect();
    wait_until(&server.control, |control| control.counters().delivered == 10);
    let crowd: Vec<_> = (0..200).map(|_| connect(server.address)).collect();
    wait_until(&server.control, |control| control.state() == epoll_acceptor::State::Full);
    let mut crowd: Vec<_> =
        crowd.into_iter().enumerate().filter_map(|(n, client)| (n % 2 == 0).then_some(client)).collect();
    drop(held.pop());
    held.clear();
    crowd.extend((0..5).map(|_| connect(server.address)));
    for client in &crowd {
        request(client);
    }
    for client in &crowd {
        assert!(response(client).unwrap().starts_with("HTTP/1.1 200 "));
    }
    server.terminate();
    server.join();
}

#[test]
fn end_resets_no_client() {
    let mut server = Server::start(&Gate::new(1000), LONG);
    // Accepted, and silent until the service ends.
    let silent: Vec<_> = (0..100).map(|_| connect(server.address)).collect();
    wait_until(&server.control, |control| control.counters().delivered == 100);
    // Pending, when the signal comes.
    let pause = server.control.pause();
    wait_until(&server.control, |control| control.state() == epoll_acceptor::State::Paused);
    let pending: Vec<_> = (0..100).map(|_| connect(server.address)).collect();
    server.terminate();
    drop(pause);
    wait_until_stopped(&server.control);
    let asking: Vec<_> = silent.into_iter().chain(pending).collect();
    let answers: Vec<_> = asking
        .into_iter()
        .map(|client| {
            thread::spawn(move || {
                request(&client);
                response(&client)
            })
        })
        .collect();
    for answer in answers {
        assert!(answer.join().unwrap().unwrap().starts_with("HTTP/1.1 200 "));
    }
    let report = server.control.shutdown_report().unwrap();
    assert_eq!((report.refused, report.abandoned), (0, Some(0)), "{report:?}");
    server.join();
}

/// The acceptor refuses at its deadline, which is later than the signal, and before the server drops it.
#[test]
fn pending_clients_are_refused_before_the_server_ends() {
    const BYE: &str = "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    for within in [Duration::ZERO, Duration::from_millis(50)] {
        let mut server = Server::start_with(&Gate::new(1), Refusal::message(BYE), within);
        let held = connect(server.address);
        wait_until(&server.control, |control| control.counters().delivered == 1);
        let pending: Vec<_> = (0..20).map(|_| connect(server.address)).collect();
        wait_until(&server.control, |control| control.state() == epoll_acceptor::State::Full);
        server.terminate();
        for client in &pending {
            assert_eq!(response(client).unwrap(), BYE);
        }
        wait_until_stopped(&server.control);
        let report = server.control.shutdown_report().unwrap();
        assert_eq!((report.refused, report.abandoned), (20, Some(0)), "{report:?}");
        drop(held);
        server.join();
    }
}

#[test]
fn silent_clients_do_not_delay_the_end_beyond_its_deadline() {
    let mut server = Server::start(&Gate::new(10), Duration::from_millis(50));
    let client = connect(server.address);
    wait_until(&server.control, |control| control.counters().delivered == 1);
    server.terminate();
    server.join();
    assert_eq!(response(&client).unwrap(), "");
}

#[test]
fn stop_ends_the_service_and_keeps_the_queue() {
    let runtime = runtime();
    let (listener, address) = listen();
    let copy = listener.try_clone().unwrap();
    let acceptor = runtime.block_on(async { LevelTriggered::on(listener).build_tokio() }).unwrap();
    let control = acceptor.control();
    let ended = acceptor.end_on(std::future::pending(), Pending::Serve(Refusal::Close), LONG);
    let server = axum::serve(acceptor.tap_io(|_| {}), app()).with_graceful_shutdown(ended);
    let server = runtime.spawn(async move { server.await });
    let mut clients = vec![connect(address)];
    control.stop();
    runtime.block_on(async { tokio::time::timeout(LONG, server).await }).unwrap().unwrap().unwrap();
    clients.push(connect(address));
    let accepted = u32::try_from(control.counters().delivered).unwrap();
    assert_eq!(accept_queue(&copy).unwrap().depth + accepted, 2, "the intake is open");
    assert_eq!(control.counters().refused, 0);
}

/// A runtime for each member of a group, and one gate for all.
#[test]
fn members_of_a_group_share_a_limit() {
    let gate = Gate::new(8);
    let mut group = Group::builder("127.0.0.1:0".parse().unwrap()).bind(2).unwrap();
    let mut workers = Vec::new();
    while let Some(member) = group.take() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let acceptor =
            runtime.block_on(async { LevelTriggered::on(member).gate(&gate).build_tokio() }).unwrap();
        let control = acceptor.control();
        let ended = acceptor.end_on(std::future::pending(), Pending::Serve(Refusal::Close), LONG);
        let server = axum::serve(acceptor.tap_io(|_| {}), app()).with_graceful_shutdown(ended);
        let thread = thread::spawn(move || runtime.block_on(async { server.await }));
        workers.push((control, thread));
    }
    assert_eq!(group.unserved(), [], "each member has an acceptor");
    let clients: Vec<_> = (0..100).map(|_| connect(group.local_addr())).collect();
    clients.iter().for_each(request);
    for client in &clients {
        assert!(response(client).unwrap().starts_with("HTTP/1.1 200 "));
    }
    for (control, thread) in workers {
        assert!(control.counters().delivered > 0, "the kernel balances");
        control.stop();
        thread.join().unwrap().unwrap();
    }
    assert!(gate.wait_idle(Some(LONG)));
}

#[test]
fn unix_listener_is_served() {
    use std::io::{Read, Write};
    let runtime = runtime();
    let path = std::env::temp_dir().join(format!("epoll-acceptor-plugs-{}", std::process::id()));
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let acceptor = runtime.block_on(async { LevelTriggered::on(listener).build_tokio() }).unwrap();
    let router = Router::new().route("/", get(async || "hello"));
    runtime.spawn(async move { axum::serve(acceptor, router).await });
    let mut client = std::os::unix::net::UnixStream::connect(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    client.write_all(crate::REQUEST).unwrap();
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    assert!(text.ends_with("hello"), "{text}");
}
