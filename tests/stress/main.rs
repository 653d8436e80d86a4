//! Stress test of many threads on one gate, on real sockets, mainly for the thread sanitizer.
//!
//! It has no test harness, because the sanitizer reports false positives in the harness's threads. Each worker has an
//! acceptor; two share a listener. Connections close on other threads, while further threads change the limit, pause
//! acceptors, acquire permits and read counters. At the end every client was served, every permit is released and the
//! counters balance.
//!
//! Runs for 1 s, or 20 s with `EPOLL_ACCEPTOR_THOROUGH=1`.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use epoll_acceptor::{
    Acceptor, Connection, Control, Counters, Epoll, Events, Gate, Refusal, Token, Trigger, WhenFull,
};
use socket2::SockRef;

type Served = Connection<TcpStream>;

const WORKERS: usize = 4;
const CLIENTS: usize = 3;
const CLOSERS: usize = 2;
/// The time limit for an answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The state that all threads share.
struct Shared {
    gate: Gate,
    addresses: Vec<SocketAddr>,
    done: AtomicBool,
    /// Clients that got an answer.
    answered: AtomicU64,
}

fn main() -> io::Result<()> {
    if std::env::args().any(|argument| argument == "--list") {
        return Ok(());
    }
    let (shared, listeners) = set_up()?;
    let (sender, to_close) = sync_channel(64);
    let to_close = Arc::new(std::sync::Mutex::new(to_close));
    let workers: Vec<_> = listeners
        .into_iter()
        .enumerate()
        .map(|(n, listener)| spawn_worker(n, listener, &shared, sender.clone()))
        .collect::<io::Result<_>>()?;
    drop(sender);
    let closers: Vec<_> = (0..CLOSERS).map(|_| close_connections(Arc::clone(&to_close))).collect();
    let (controls, workers): (Vec<_>, Vec<_>) = workers.into_iter().unzip();
    let mut others: Vec<_> = (0..CLIENTS).map(|n| spawn_client(n, &shared)).collect();
    others.push(change_limits(&shared));
    others.push(acquire_permits(&shared));
    others.push(pause_each(&controls, &shared));

    thread::sleep(Duration::from_secs(if thorough() { 20 } else { 1 }));
    shared.done.store(true, Ordering::Relaxed);
    others.into_iter().for_each(join);
    // All clients have their answers, so the workers can stop.
    controls.iter().for_each(Control::stop);
    workers.into_iter().for_each(join);
    closers.into_iter().for_each(join);
    check_balance(&shared, &controls);
    Ok(())
}

/// Binds the listeners of the workers; the last worker shares the listener of the first.
fn set_up() -> io::Result<(Arc<Shared>, Vec<TcpListener>)> {
    let mut listeners = vec![];
    for _ in 1..WORKERS {
        listeners.push(TcpListener::bind("127.0.0.1:0")?);
    }
    let addresses = listeners.iter().map(TcpListener::local_addr).collect::<io::Result<_>>()?;
    listeners.push(listeners[0].try_clone()?);
    let shared =
        Shared { gate: Gate::new(4), addresses, done: AtomicBool::new(false), answered: AtomicU64::new(0) };
    Ok((Arc::new(shared), listeners))
}

/// Spawns a thread with an epoll and an acceptor, until the acceptor is stopped.
fn spawn_worker(
    n: usize,
    listener: TcpListener,
    shared: &Shared,
    closers: SyncSender<Served>,
) -> io::Result<(Control, JoinHandle<()>)> {
    // One acceptor sheds load.
    let gate = match n {
        1 => shared.gate.with_when_full(WhenFull::Shed(Refusal::message("busy"))),
        _ => shared.gate.clone(),
    };
    let trigger = match n {
        1 => Trigger::Level,
        2 => Trigger::Edge,
        _ => Trigger::Exclusive,
    };
    let epoll = Epoll::new()?;
    let mut acceptor =
        trigger.on(listener).budget(8).gate(&gate).register(&epoll, Token(7)).map_err(io::Error::other)?;
    let control = acceptor.control();
    let stopped = acceptor.control();
    let thread = thread::spawn(move || {
        let mut events = Events::with_capacity(8).expect("a buffer");
        while !stopped.state().is_terminal() {
            epoll.wait(&mut events, Some(TIMEOUT)).expect("a wait");
            for event in events.by_ref() {
                assert_eq!(event.token(), Token(7));
                let pass = acceptor.drain(|connection| serve(connection, &closers));
                pass.expect("the listener lives");
            }
        }
    });
    Ok((control, thread))
}

/// Answers, and passes the connection to a closer, or closes it here if the channel is full.
fn serve(mut connection: Served, closers: &SyncSender<Served>) {
    let _ = connection.write(b"hello");
    if let Err(TrySendError::Full(connection) | TrySendError::Disconnected(connection)) =
        closers.try_send(connection)
    {
        drop(connection);
    }
}

fn close_connections(to_close: Arc<std::sync::Mutex<Receiver<Served>>>) -> JoinHandle<()> {
    thread::spawn(move || {
        loop {
            let next = to_close.lock().expect("not poisoned").recv();
            match next {
                Ok(connection) => drop(connection),
                Err(_) => return,
            }
        }
    })
}

/// Spawns a client that repeatedly connects and waits for its answer.
fn spawn_client(n: usize, shared: &Arc<Shared>) -> JoinHandle<()> {
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        for address in shared.addresses.iter().cycle().skip(n) {
            if shared.done.load(Ordering::Relaxed) {
                return;
            }
            // Two at a time: only a queue longer than one can strand a connection.
            let pair = [TcpStream::connect(address), TcpStream::connect(address)];
            for client in pair {
                let mut client = client.expect("a loopback connection");
                client.set_read_timeout(Some(TIMEOUT)).expect("a time-out");
                match client.read(&mut [0; 16]) {
                    Ok(_) => shared.answered.fetch_add(1, Ordering::Relaxed),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("stranded at {address}"),
                    // A refusal that reset the connection.
                    Err(_) => shared.answered.fetch_add(1, Ordering::Relaxed),
                };
                // Leaves no TIME_WAIT, because this runs for a while.
                let _ = SockRef::from(&client).set_linger(Some(Duration::ZERO));
            }
        }
    })
}

fn change_limits(shared: &Arc<Shared>) -> JoinHandle<()> {
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        for limit in [1, 4, 0, 2, 100, 3].into_iter().cycle() {
            if shared.done.load(Ordering::Relaxed) {
                return shared.gate.set_limit(4);
            }
            shared.gate.set_limit(limit);
            thread::yield_now();
        }
    })
}

fn acquire_permits(shared: &Arc<Shared>) -> JoinHandle<()> {
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        while !shared.done.load(Ordering::Relaxed) {
            drop(shared.gate.try_acquire());
            let _ = shared.gate.wait_idle(Some(Duration::from_micros(50)));
        }
    })
}

/// Pauses all acceptors in turn, and reads their state and counters.
fn pause_each(controls: &[Control], shared: &Arc<Shared>) -> JoinHandle<()> {
    let (controls, shared) = (controls.to_vec(), Arc::clone(shared));
    thread::spawn(move || {
        for control in controls.iter().cycle() {
            let pause = control.pause();
            let _ = (control.state(), control.counters().to_string());
            drop(pause);
            if shared.done.load(Ordering::Relaxed) {
                return;
            }
        }
    })
}

fn check_balance(shared: &Shared, controls: &[Control]) {
    assert!(shared.gate.wait_idle(Some(TIMEOUT)), "{} permits are in use", shared.gate.in_use());
    let all: Vec<Counters> = controls.iter().map(Control::counters).collect();
    all.iter().for_each(|counters| assert!(counters.is_balanced(), "{counters}"));
    let accepted: u64 =
        all.iter().map(|counters| counters.delivered + counters.refused + counters.aborted).sum();
    let answered = shared.answered.load(Ordering::Relaxed);
    assert_eq!(accepted, answered, "accepted connections and answers");
    let line = |name, count: fn(&Counters) -> u64| format!("{name} {}", all.iter().map(count).sum::<u64>());
    let figures = [
        line("delivered", |counters| counters.delivered),
        line("refused", |counters| counters.refused),
        line("full", |counters| counters.full),
        line("pauses", |counters| counters.pauses),
        line("empty accepts", |counters| counters.empty),
    ];
    println!("stress: {WORKERS} acceptors on one gate, {}, balanced", figures.join(", "));
}

fn thorough() -> bool {
    std::env::var_os("EPOLL_ACCEPTOR_THOROUGH").is_some()
}

fn join(thread: JoinHandle<()>) {
    thread.join().expect("no thread panics");
}
