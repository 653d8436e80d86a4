//! Many threads on one gate, on real sockets, for a while: for the thread sanitizer above all.
//!
//! Without the test harness, whose own threads the sanitizer reports falsely. Several workers have an acceptor each,
//! some of them on one listener; the connections they accept end on other threads; others change the limit, pause
//! and resume, acquire places of their own, and read the counters. At the end it has to balance: everyone who
//! connected was served, no place is out, every attempt is accounted for.
//!
//! `EPOLL_ACCEPTOR_THOROUGH=1` runs it for 20 s instead of 1 s.

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
const ENDERS: usize = 2;
/// Nobody in this program may wait as long as that for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What everybody shares.
struct Stage {
    gate: Gate,
    addresses: Vec<SocketAddr>,
    over: AtomicBool,
    /// Clients that got an answer.
    answered: AtomicU64,
}

fn main() -> io::Result<()> {
    if std::env::args().any(|argument| argument == "--list") {
        return Ok(());
    }
    let (stage, listeners) = stage()?;
    let (end, ended) = sync_channel(64);
    let ended = Arc::new(std::sync::Mutex::new(ended));
    let workers: Vec<_> = listeners
        .into_iter()
        .enumerate()
        .map(|(n, listener)| work(n, listener, &stage, end.clone()))
        .collect::<io::Result<_>>()?;
    drop(end);
    let enders: Vec<_> = (0..ENDERS).map(|_| end_connections(Arc::clone(&ended))).collect();
    let (controls, workers): (Vec<_>, Vec<_>) = workers.into_iter().unzip();
    let mut others: Vec<_> = (0..CLIENTS).map(|n| connect(n, &stage)).collect();
    others.push(change_limits(&stage));
    others.push(acquire_places(&stage));
    others.push(pause_and_resume(&controls, &stage));

    thread::sleep(Duration::from_secs(if thorough() { 20 } else { 1 }));
    stage.over.store(true, Ordering::Relaxed);
    others.into_iter().for_each(join);
    // Nobody connects any more, and whoever did has been answered: now the workers may go.
    controls.iter().for_each(Control::stop);
    workers.into_iter().for_each(join);
    enders.into_iter().for_each(join);
    balance(&stage, &controls);
    Ok(())
}

/// Four workers, two of them on one listener.
fn stage() -> io::Result<(Arc<Stage>, Vec<TcpListener>)> {
    let mut listeners = vec![];
    for _ in 1..WORKERS {
        listeners.push(TcpListener::bind("127.0.0.1:0")?);
    }
    let addresses = listeners.iter().map(TcpListener::local_addr).collect::<io::Result<_>>()?;
    listeners.push(listeners[0].try_clone()?);
    let stage =
        Stage { gate: Gate::new(4), addresses, over: AtomicBool::new(false), answered: AtomicU64::new(0) };
    Ok((Arc::new(stage), listeners))
}

/// One acceptor on an epoll and a thread of its own, until it is stopped.
fn work(
    n: usize,
    listener: TcpListener,
    stage: &Stage,
    end: SyncSender<Served>,
) -> io::Result<(Control, JoinHandle<()>)> {
    // One of them sheds.
    let gate = match n {
        1 => stage.gate.clone().when_full(WhenFull::Shed(Refusal::message("busy"))),
        _ => stage.gate.clone(),
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
            epoll.wait(&mut events, Some(PATIENCE)).expect("a wait");
            for event in events.by_ref() {
                assert_eq!(event.token(), Token(7));
                let pass = acceptor.drain(|connection| hand_on(connection, &end));
                pass.expect("the listener lives");
            }
        }
    });
    Ok((control, thread))
}

/// Answers, and lets another thread end the connection, unless that one is busy.
fn hand_on(mut connection: Served, end: &SyncSender<Served>) {
    let _ = connection.write(b"hello");
    if let Err(TrySendError::Full(connection) | TrySendError::Disconnected(connection)) =
        end.try_send(connection)
    {
        drop(connection);
    }
}

fn end_connections(ended: Arc<std::sync::Mutex<Receiver<Served>>>) -> JoinHandle<()> {
    thread::spawn(move || {
        loop {
            let next = ended.lock().expect("not poisoned").recv();
            match next {
                Ok(connection) => drop(connection),
                Err(_) => return,
            }
        }
    })
}

/// A client that connects, and waits for its answer, again and again.
fn connect(n: usize, stage: &Arc<Stage>) -> JoinHandle<()> {
    let stage = Arc::clone(stage);
    thread::spawn(move || {
        for address in stage.addresses.iter().cycle().skip(n) {
            if stage.over.load(Ordering::Relaxed) {
                return;
            }
            // Two at a time: a queue that is longer than one is what there is to strand.
            let pair = [TcpStream::connect(address), TcpStream::connect(address)];
            for client in pair {
                let mut client = client.expect("a loopback connection");
                client.set_read_timeout(Some(PATIENCE)).expect("a time-out");
                match client.read(&mut [0; 16]) {
                    Ok(_) => stage.answered.fetch_add(1, Ordering::Relaxed),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("stranded at {address}"),
                    // A refusal, if anything was sent before.
                    Err(_) => stage.answered.fetch_add(1, Ordering::Relaxed),
                };
                // No TIME_WAIT: this runs for a while.
                let _ = SockRef::from(&client).set_linger(Some(Duration::ZERO));
            }
        }
    })
}

fn change_limits(stage: &Arc<Stage>) -> JoinHandle<()> {
    let stage = Arc::clone(stage);
    thread::spawn(move || {
        for limit in [1, 4, 0, 2, 100, 3].into_iter().cycle() {
            if stage.over.load(Ordering::Relaxed) {
                return stage.gate.set_limit(4);
            }
            stage.gate.set_limit(limit);
            thread::yield_now();
        }
    })
}

fn acquire_places(stage: &Arc<Stage>) -> JoinHandle<()> {
    let stage = Arc::clone(stage);
    thread::spawn(move || {
        while !stage.over.load(Ordering::Relaxed) {
            drop(stage.gate.try_acquire());
            let _ = stage.gate.wait_idle(Some(Duration::from_micros(50)));
        }
    })
}

/// Also reads what the acceptors publish while they are at work.
fn pause_and_resume(controls: &[Control], stage: &Arc<Stage>) -> JoinHandle<()> {
    let (controls, stage) = (controls.to_vec(), Arc::clone(stage));
    thread::spawn(move || {
        for control in controls.iter().cycle() {
            control.pause();
            let _ = (control.state(), control.counters().to_string());
            control.resume();
            // After the last resume: or somebody could stay paused.
            if stage.over.load(Ordering::Relaxed) {
                return;
            }
        }
    })
}

fn balance(stage: &Stage, controls: &[Control]) {
    assert!(stage.gate.wait_idle(Some(PATIENCE)), "{} places are out", stage.gate.in_use());
    let all: Vec<Counters> = controls.iter().map(Control::counters).collect();
    all.iter().for_each(|counters| assert!(counters.is_balanced(), "{counters}"));
    let taken: u64 =
        all.iter().map(|counters| counters.delivered + counters.refused + counters.aborted).sum();
    let answered = stage.answered.load(Ordering::Relaxed);
    assert_eq!(taken, answered, "taken, and answered");
    let line = |name, count: fn(&Counters) -> u64| format!("{name} {}", all.iter().map(count).sum::<u64>());
    let figures = [
        line("delivered", |counters| counters.delivered),
        line("refused", |counters| counters.refused),
        line("slept full", |counters| counters.full),
        line("pauses", |counters| counters.pauses),
        line("in vain", |counters| counters.empty),
    ];
    println!("stress: {WORKERS} acceptors on one gate, {}, balanced", figures.join(", "));
}

fn thorough() -> bool {
    std::env::var_os("EPOLL_ACCEPTOR_THOROUGH").is_some()
}

fn join(thread: JoinHandle<()>) {
    thread.join().expect("no thread panics");
}
