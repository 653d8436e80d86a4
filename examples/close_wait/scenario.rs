//! The scenario: a server for one connection, a client that occupies it, many that wait, and then the first one leaves.

use std::error::Error;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use epoll_acceptor::Trigger;
use socket2::{Domain, Socket, Type};

use crate::client::{Client, Clients, Reply, count_answered};
use crate::observer::{self, Sockets};
use crate::service::{Service, Task};
use crate::{faulty, ours};

/// How many connect while the server is full; half of them quit.
pub(crate) const CLIENTS: usize = 200;
/// How many connect when the server is free again.
pub(crate) const LATER: usize = 5;

/// How long the server is observed while it is full.
const OBSERVED: Duration = Duration::from_millis(300);
/// The interval of [`Outcome::depth`].
pub(crate) const STEP: Duration = Duration::from_millis(50);
/// The bound of every wait for something that must happen.
const BOUND: Duration = Duration::from_secs(10);

/// Which server accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    FaultyEdge,
    FaultyLevel,
    Wait(Trigger),
    Shed(Trigger),
}

/// All variants, in the order of the table.
pub(crate) const VARIANTS: [Variant; 6] = [
    Variant::FaultyEdge,
    Variant::FaultyLevel,
    Variant::Wait(Trigger::Edge),
    Variant::Shed(Trigger::Edge),
    Variant::Wait(Trigger::Level),
    Variant::Shed(Trigger::Level),
];

/// What was observed.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) variant: Variant,
    /// While the server is full.
    pub(crate) full: Sockets,
    pub(crate) cpu_percent_while_full: f64,
    /// Of the clients that wait, after the last of the later ones.
    pub(crate) answered: usize,
    pub(crate) refused: usize,
    pub(crate) later_answered: usize,
    /// After the later clients.
    pub(crate) after: Sockets,
    /// The length of the accept queue, every [`STEP`].
    pub(crate) depth: Vec<u32>,
}

/// Runs the scenario once.
pub(crate) fn run_variant(variant: Variant) -> Result<Outcome, Box<dyn Error>> {
    let server = Server::start(variant)?;
    let depth = Depth::record(server.address.port());
    let mut first = Client::ask(server.address)?;
    server.task_begun.recv_timeout(BOUND)?;
    let clients = Clients::connect(server.address, CLIENTS)?;
    server.wait_until_queued(CLIENTS)?;
    server.task_done.send(())?;
    expect(first.reply(BOUND)? == Reply::Answered, "the first client is served")?;

    server.wait_until_settled()?;
    let cpu_percent_while_full = server.cpu_percent()?;
    let full = server.sockets()?;
    first.leave()?;

    let later_answered = count_answered(server.address, LATER)?;
    let (answered, refused) = clients.answered_and_refused();
    let after = server.sockets()?;
    let depth = depth.finish()?;
    server.stop()?;
    clients.join();
    Ok(Outcome { variant, full, cpu_percent_while_full, answered, refused, later_answered, after, depth })
}

impl Variant {
    fn serve(self, listener: TcpListener, service: &mut Service) -> io::Result<()> {
        match self {
            Self::FaultyEdge => faulty::serve(&listener, faulty::EDGE, service),
            Self::FaultyLevel => faulty::serve(&listener, faulty::LEVEL, service),
            Self::Wait(trigger) => ours::serve(listener, trigger, ours::wait(), service),
            Self::Shed(trigger) => ours::serve(listener, trigger, ours::shed(), service),
        }
    }
}

/// A server on its own thread.
struct Server {
    address: SocketAddr,
    thread: JoinHandle<io::Result<()>>,
    stop: UnixStream,
    task_begun: Receiver<()>,
    task_done: Sender<()>,
}

impl Server {
    fn start(variant: Variant) -> io::Result<Self> {
        let listener = listen()?;
        let address = listener.local_addr()?;
        let (stop, stopped) = UnixStream::pair()?;
        let ((begun, task_begun), (task_done, done)) = (channel(), channel());
        let thread = thread::Builder::new().name("server".into()).spawn(move || {
            let task = Some(Task { begun, done });
            variant.serve(listener, &mut Service { stop: stopped, task })
        })?;
        Ok(Self { address, thread, stop, task_begun, task_done })
    }

    fn sockets(&self) -> io::Result<Sockets> {
        observer::sockets(self.address.port())
    }

    fn wait_until_queued(&self, count: usize) -> Result<(), Box<dyn Error>> {
        let begun = Instant::now();
        while self.sockets()?.queued as usize != count {
            expect(begun.elapsed() < BOUND, "all clients are queued")?;
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Waits until the server has done what it will do with the clients: three observations in a row are equal.
    fn wait_until_settled(&self) -> Result<(), Box<dyn Error>> {
        let mut seen = [None; 3];
        while seen[0].is_none() || seen.iter().any(|sockets| *sockets != seen[0]) {
            thread::sleep(Duration::from_millis(20));
            seen = [seen[1], seen[2], Some(self.sockets()?)];
        }
        Ok(())
    }

    fn cpu_percent(&self) -> io::Result<f64> {
        let (begun, before) = (Instant::now(), observer::cpu_time(&self.thread)?);
        thread::sleep(OBSERVED);
        let used = observer::cpu_time(&self.thread)?.saturating_sub(before);
        Ok(100.0 * used.as_secs_f64() / begun.elapsed().as_secs_f64())
    }

    fn stop(self) -> Result<(), Box<dyn Error>> {
        drop(self.stop);
        self.thread.join().map_err(|_| "the server panicked")??;
        Ok(())
    }
}

/// Records the length of an accept queue on its own thread.
struct Depth {
    stop: Sender<()>,
    recorder: JoinHandle<Vec<u32>>,
}

impl Depth {
    fn record(port: u16) -> Self {
        let (stop, stopped) = channel();
        let recorder = thread::spawn(move || {
            let mut depth = Vec::new();
            while stopped.recv_timeout(STEP) == Err(RecvTimeoutError::Timeout) {
                depth.extend(observer::sockets(port).map(|sockets| sockets.queued));
            }
            depth
        });
        Self { stop, recorder }
    }

    fn finish(self) -> Result<Vec<u32>, Box<dyn Error>> {
        drop(self.stop);
        self.recorder.join().map_err(|_| "the thread that records the queue panicked".into())
    }
}

/// A listener whose backlog holds all clients.
fn listen() -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

fn expect(fact: bool, wording: &str) -> Result<(), Box<dyn Error>> {
    if fact { Ok(()) } else { Err(format!("expected, and not observed: {wording}").into()) }
}
