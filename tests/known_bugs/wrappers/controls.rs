//! The controls on the real kernel: this crate's code keeps the property that a mutant beside it breaks on the simulated
//! one.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use epoll_acceptor::epoll::Waker;
use epoll_acceptor::{Acceptor, EdgeTriggered, Epoll, Events, Interest, LevelTriggered, Token};

/// For what must happen: far longer than it takes.
const LONG: Option<Duration> = Some(Duration::from_secs(30));

type Outcome = Result<(), String>;

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn wait(epoll: &Epoll, timeout: Option<Duration>) -> usize {
    let mut events = Events::with_capacity(8).unwrap();
    epoll.wait(&mut events, timeout).unwrap().count()
}

/// M42.
pub(super) fn silent_after_one_shot() -> Outcome {
    let epoll = Epoll::new().unwrap();
    let (listener, address) = listener();
    epoll.add(&listener, Token(7), Interest::IN | Interest::ONESHOT).unwrap();
    let _first = TcpStream::connect(address).unwrap();
    assert_eq!(wait(&epoll, LONG), 1);
    let _second = TcpStream::connect(address).unwrap();
    // The waker bounds the wait: what the listener reports would be beside it.
    let waker = Waker::new(&epoll, Token(8)).unwrap();
    waker.wake().unwrap();
    match wait(&epoll, LONG) {
        1 => Ok(()),
        events => Err(format!("the crate's epoll: {events} events")),
    }
}

/// M43.
pub(super) fn no_event_after_the_end() -> Outcome {
    let epoll = Epoll::new().unwrap();
    let (listener, address) = listener();
    let copy = listener.try_clone().unwrap();
    drop(LevelTriggered::on(listener).register(&epoll, Token(7)).unwrap());
    let _client = TcpStream::connect(address).unwrap();
    drop(copy.accept().unwrap());
    let _next = TcpStream::connect(address).unwrap();
    match wait(&epoll, Some(Duration::ZERO)) {
        0 => Ok(()),
        events => Err(format!("a dropped acceptor: {events} events")),
    }
}

/// M56.
pub(super) fn reports_earlier_arrivals() -> Outcome {
    let (listener, address) = listener();
    let _client = TcpStream::connect(address).unwrap();
    let epoll = Epoll::new().unwrap();
    let mut acceptor = EdgeTriggered::on(listener).register(&epoll, Token(7)).unwrap();
    match wait(&epoll, LONG) {
        0 => Err("an acceptor: no event of an earlier connection".into()),
        _ => served(&mut acceptor).filter(|served| *served == 1).map(drop).ok_or("not accepted".into()),
    }
}

fn served(acceptor: &mut impl Acceptor) -> Option<usize> {
    acceptor.drain(drop).ok()
}

/// F22, M52, and with `handover` L22: two clients are queued as the listener changes hands, and one connects after that.
pub(super) fn new_owner_serves_all() -> Outcome {
    let (listener, address) = listener();
    let mut clients = vec![TcpStream::connect(address).unwrap(), TcpStream::connect(address).unwrap()];
    let epoll = Epoll::new().unwrap();
    let old = LevelTriggered::on(listener).register(&epoll, Token(7)).unwrap();
    let listener = passed_on(old.into_listener());
    clients.push(TcpStream::connect(address).map_err(|error| error.to_string())?);
    let mut new = LevelTriggered::on(listener).register(&epoll, Token(8)).unwrap();
    let mut accepted = 0;
    while accepted < clients.len() {
        if wait(&epoll, LONG) == 0 {
            return Err(format!("handed over: {accepted} of {} served", clients.len()));
        }
        accepted += served(&mut new).ok_or("the listener is closed")?;
    }
    Ok(())
}

/// Passes it to another owner, as the one of two that has its name.
#[cfg(feature = "handover")]
fn passed_on(given: TcpListener) -> TcpListener {
    let (old, new) = std::os::unix::net::UnixStream::pair().unwrap();
    let (other, _) = listener();
    epoll_acceptor::handover::send(&old, &[("other", &other), ("http", &given)]).unwrap();
    drop(given);
    epoll_acceptor::handover::receive(&new).unwrap().take_tcp("http").unwrap()
}

#[cfg(not(feature = "handover"))]
fn passed_on(given: TcpListener) -> TcpListener {
    given
}
