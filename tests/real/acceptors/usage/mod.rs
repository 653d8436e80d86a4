//! Programs as users write them, each run on loopback: they must compile without tricks, newtypes or annotations.

#[cfg(feature = "sim")]
mod own_filter;
mod support;

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};
use std::net::{IpAddr, TcpListener};
use std::thread;
use std::time::Duration;

use epoll_acceptor::filter::Rejection;
use epoll_acceptor::{
    Acceptor, EdgeTriggered, Epoll, Events, Gate, Interest, LevelTriggered, PeerLimit, QueueDelay, State,
    Token, filter_fn,
};

use crate::usage::support::{Client, LIMIT, WITHIN, listen};

/// A raw epoll loop with a limit, which greets each client and keeps its connection until the client closes.
#[test]
fn raw_loop_with_a_limit() -> io::Result<()> {
    const LISTENER: Token = Token(0);

    let (listener, address) = listen()?;
    let epoll = Epoll::new()?;
    let gate = Gate::new(LIMIT);
    let mut acceptor = LevelTriggered::on(listener).backlog(4_096).gate(&gate).register(&epoll, LISTENER)?;
    let control = acceptor.control();
    let clients = thread::spawn(move || {
        let clients: Vec<_> = (0..3 * LIMIT).map(|_| Client::connect(address)).collect();
        for client in clients {
            client.await_greeting();
        }
        control.stop();
    });

    let mut events = Events::with_capacity(1_024)?;
    let mut connections = HashMap::new();
    let mut tokens = 1..;
    while !acceptor.state().is_terminal() {
        epoll.wait(&mut events, None)?;
        for event in &mut events {
            match event.token() {
                LISTENER => {
                    for connection in acceptor.ready() {
                        let mut connection = connection?;
                        connection.write_all(b"hello")?;
                        let token = Token(tokens.next().expect("fewer than 2^64"));
                        epoll.add(&connection, token, Interest::IN)?;
                        connections.insert(token, connection);
                    }
                    assert!(gate.in_use() <= LIMIT);
                }
                token => drop(connections.remove(&token)),
            }
        }
    }
    clients.join().expect("every client is greeted");
    assert_eq!(acceptor.counters().delivered, u64::from(3 * LIMIT));
    Ok(())
}

/// A closure and the configuration decide which clients may connect.
#[test]
fn filters_from_a_closure_and_from_configuration() -> io::Result<()> {
    struct Config {
        per_ip: Option<u32>,
        blocked: HashSet<IpAddr>,
    }

    for (per_ip, expected) in [(Some(1), 2), (None, 3)] {
        let config = Config { per_ip, blocked: HashSet::from([[127, 0, 0, 9].into()]) };

        let (listener, address) = listen()?;
        let epoll = Epoll::new()?;
        let gate = Gate::new(LIMIT);
        let per_ip: Option<PeerLimit> = config.per_ip.map(PeerLimit::new);
        let mut acceptor = EdgeTriggered::on(listener)
            .gate(&gate)
            .filter(filter_fn(move |info| match info.peer() {
                Some(peer) if !config.blocked.contains(&peer.ip()) => Ok(()),
                _ => Err(Rejection::reset()),
            }))
            .filter(per_ip)
            .filter(QueueDelay::new(Duration::from_millis(100)))
            .register(&epoll, Token(0))?;

        let from = [[127, 0, 0, 9], [127, 0, 0, 2], [127, 0, 0, 2], [127, 0, 0, 3]];
        let _clients = from.map(|ip| Client::connect_from(ip, address));
        let mut served = Vec::new();
        acceptor.drain(|connection| served.push(connection))?;
        let counters = acceptor.counters();
        assert_eq!((served.len(), counters.refused_filter), (expected, 1));
        assert_eq!(counters.refused_peer, 3 - expected as u64);
    }
    Ok(())
}

/// In mio's own poll.
#[test]
fn in_mios_poll() -> io::Result<()> {
    const LISTENER: mio::Token = mio::Token(0);

    let (listener, address) = listen()?;
    let gate = Gate::new(LIMIT);
    let mut poll = mio::Poll::new()?;
    let mut acceptor = LevelTriggered::on(listener).gate(&gate).register(poll.registry(), Token(0))?;
    let control = acceptor.control();
    let clients = thread::spawn(move || {
        for _ in 0..3 * LIMIT {
            Client::connect(address).await_greeting();
        }
        control.stop();
    });

    let mut events = mio::Events::with_capacity(1_024);
    let mut connections = HashMap::new();
    let mut tokens = 1..;
    while !acceptor.state().is_terminal() {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() != LISTENER {
                connections.remove(&event.token());
                continue;
            }
            for connection in acceptor.ready() {
                let mut connection = connection?.map(mio::net::TcpStream::from_std);
                connection.write_all(b"hello")?;
                let token = mio::Token(tokens.next().expect("fewer than 2^64"));
                poll.registry().register(&mut *connection, token, mio::Interest::READABLE)?;
                connections.insert(token, connection);
            }
        }
    }
    clients.join().expect("every client is greeted");
    Ok(())
}

/// Pauses from two places.
#[test]
fn two_pauses() -> io::Result<()> {
    let (listener, address) = listen()?;
    let epoll = Epoll::new()?;
    let mut acceptor = LevelTriggered::on(listener).register(&epoll, Token(0))?;
    let control = acceptor.control();
    let _client = Client::connect(address);

    let operator = control.pause();
    let memory_pressure = control.pause();
    drop(memory_pressure); // still paused by the operator
    assert_eq!(acceptor.ready().count(), 0);
    assert_eq!(control.state(), State::Paused);

    drop(operator);
    let mut events = Events::with_capacity(8)?;
    let mut served = 0;
    while served == 0 {
        epoll.wait(&mut events, None)?;
        for _ in &mut events {
            served += acceptor.drain(drop)?;
        }
    }
    assert_eq!(control.state(), State::Listening);
    Ok(())
}

/// A graceful end with a deadline.
#[cfg(feature = "tokio")]
#[tokio::test]
async fn graceful_end_with_a_deadline() -> io::Result<()> {
    use epoll_acceptor::{Pending, Refusal};
    use tokio::io::AsyncWriteExt;

    let (listener, address) = listen()?;
    let gate = Gate::new(LIMIT);
    let mut acceptor = LevelTriggered::on(listener).gate(&gate).build_tokio()?;
    let control = acceptor.control();
    let clients: Vec<_> = (0..LIMIT).map(|_| Client::connect(address)).collect();

    control.shutdown_gracefully(Pending::Serve(Refusal::Close), Duration::from_secs(5));
    while let Some(mut connection) = acceptor.accept().await? {
        tokio::spawn(async move {
            connection.write_all(b"hello").await?;
            tokio::time::sleep(Duration::from_millis(20)).await;
            io::Result::Ok(())
        });
    }
    let report = acceptor.shutdown_report().expect("the shutdown has ended");
    assert_eq!((report.served, report.refused, report.abandoned), (LIMIT.into(), 0, Some(0)));
    drop(acceptor);
    tokio::time::timeout(WITHIN, gate.idle()).await.expect("all connections end in time");
    for client in clients {
        client.await_greeting();
    }
    Ok(())
}

/// A graceful end in a raw loop: the same call, and the loop stays as it is.
#[test]
fn graceful_end_of_a_raw_loop() -> io::Result<()> {
    use epoll_acceptor::{Pending, Refusal};

    let (listener, address) = listen()?;
    let epoll = Epoll::new()?;
    let gate = Gate::new(LIMIT);
    let mut acceptor = LevelTriggered::on(listener).gate(&gate).register(&epoll, Token(0))?;
    let mut client = Client::connect(address);

    acceptor.control().shutdown_gracefully(Pending::Serve(Refusal::Close), Duration::from_secs(5));
    let mut events = Events::with_capacity(8)?;
    while !acceptor.state().is_terminal() {
        epoll.wait(&mut events, None)?;
        for _ in &mut events {
            for connection in acceptor.ready() {
                connection?.write_all(b"hello")?;
            }
        }
    }
    assert_eq!(acceptor.shutdown_report().map(|report| report.served), Some(1));
    assert!(gate.wait_idle(Some(WITHIN)));
    let mut greeting = String::new();
    client.read_to_string(&mut greeting)?;
    assert_eq!(greeting, "hello");
    Ok(())
}

/// The types of acceptors without filters are short enough to name.
#[test]
fn types_can_be_named() {
    use epoll_acceptor::{Connection, EpollAcceptor};
    use std::net::TcpStream;

    struct Server {
        _acceptor: EpollAcceptor<TcpListener>,
        _connections: Vec<Connection<TcpStream>>,
    }

    let (listener, _) = listen().expect("a listener");
    let epoll = Epoll::new().expect("an epoll");
    let acceptor = LevelTriggered::on(listener).gate(&Gate::new(LIMIT)).register(&epoll, Token(0));
    let mut acceptor = acceptor.expect("a registration");
    let connections = acceptor.ready().collect::<Result<_, _>>().expect("a listener that listens");
    let _server = Server { _acceptor: acceptor, _connections: connections };
}
