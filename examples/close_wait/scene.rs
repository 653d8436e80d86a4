//! The scene: one place, one who holds it, a crowd, and then the place is free.

use std::error::Error;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use epoll_acceptor::Trigger;
use socket2::{Domain, Socket, Type};

use crate::client::{Client, Crowd, Reply, newcomers_answered};
use crate::outsider::{self, Sockets};
use crate::service::{Errand, Service};
use crate::{faulty, ours};

/// How many connect while the place is taken; half of them quit.
pub(crate) const CROWD: usize = 200;
/// How many come when the place is free.
pub(crate) const NEWCOMERS: usize = 5;

/// How long the server is watched while it is full.
const WATCHED: Duration = Duration::from_millis(300);
/// How often the queue is looked at for [`Outcome::depth`].
pub(crate) const STEP: Duration = Duration::from_millis(50);
/// The bound of every wait for something that is certain to come.
const BOUND: Duration = Duration::from_secs(10);

/// Who accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cast {
    FaultyEdge,
    FaultyLevel,
    Pause(Trigger),
    Shed(Trigger),
}

/// All, in the order of the table.
pub(crate) const CASTS: [Cast; 6] = [
    Cast::FaultyEdge,
    Cast::FaultyLevel,
    Cast::Pause(Trigger::Edge),
    Cast::Shed(Trigger::Edge),
    Cast::Pause(Trigger::Level),
    Cast::Shed(Trigger::Level),
];

/// What was seen.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) cast: Cast,
    /// While the one place is taken.
    pub(crate) full: Sockets,
    pub(crate) cpu_percent_while_full: f64,
    /// Of those who stayed, when the last newcomer had its chance.
    pub(crate) answered: usize,
    pub(crate) refused: usize,
    pub(crate) newcomers_answered: usize,
    /// After the newcomers.
    pub(crate) after: Sockets,
    /// How many were queued, in steps of [`STEP`].
    pub(crate) depth: Vec<u32>,
}

/// Plays the scene once.
pub(crate) fn play(cast: Cast) -> Result<Outcome, Box<dyn Error>> {
    let server = Server::start(cast)?;
    let depth = Depth::watch(server.address.port());
    let mut holder = Client::ask(server.address)?;
    server.errand_begun.recv_timeout(BOUND)?;
    let crowd = Crowd::arrive(server.address, CROWD)?;
    server.wait_until_queued(CROWD)?;
    server.errand_done.send(())?;
    expect(holder.reply(BOUND)? == Reply::Answered, "the first client is served")?;

    server.wait_until_settled()?;
    let cpu_percent_while_full = server.cpu_percent()?;
    let full = server.sockets()?;
    holder.leave()?;

    let newcomers_answered = newcomers_answered(server.address, NEWCOMERS)?;
    let (answered, refused) = crowd.answered_and_refused();
    let after = server.sockets()?;
    let depth = depth.seen()?;
    server.stop()?;
    crowd.disperse();
    Ok(Outcome { cast, full, cpu_percent_while_full, answered, refused, newcomers_answered, after, depth })
}

impl Cast {
    fn serve(self, listener: TcpListener, service: &mut Service) -> io::Result<()> {
        match self {
            Self::FaultyEdge => faulty::serve(&listener, faulty::EDGE, service),
            Self::FaultyLevel => faulty::serve(&listener, faulty::LEVEL, service),
            Self::Pause(trigger) => ours::serve(listener, trigger, ours::pause(), service),
            Self::Shed(trigger) => ours::serve(listener, trigger, ours::shed(), service),
        }
    }
}

/// A server in its thread.
struct Server {
    address: SocketAddr,
    thread: JoinHandle<io::Result<()>>,
    stop: UnixStream,
    errand_begun: Receiver<()>,
    errand_done: Sender<()>,
}

impl Server {
    fn start(cast: Cast) -> io::Result<Self> {
        let listener = listen()?;
        let address = listener.local_addr()?;
        let (stop, stopped) = UnixStream::pair()?;
        let ((begun, errand_begun), (errand_done, done)) = (channel(), channel());
        let thread = thread::Builder::new().name("server".into()).spawn(move || {
            let errand = Some(Errand { begun, done });
            cast.serve(listener, &mut Service { stop: stopped, errand })
        })?;
        Ok(Self { address, thread, stop, errand_begun, errand_done })
    }

    fn sockets(&self) -> Result<Sockets, Box<dyn Error>> {
        outsider::sockets(self.address.port())
    }

    fn wait_until_queued(&self, count: usize) -> Result<(), Box<dyn Error>> {
        let begun = Instant::now();
        while self.sockets()?.queued as usize != count {
            expect(begun.elapsed() < BOUND, "all who connected are queued")?;
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Waits until the server has done with the crowd what it will do: three looks in a row see the same.
    fn wait_until_settled(&self) -> Result<(), Box<dyn Error>> {
        let mut seen = [None; 3];
        while seen[0].is_none() || seen.iter().any(|look| *look != seen[0]) {
            thread::sleep(Duration::from_millis(20));
            seen = [seen[1], seen[2], Some(self.sockets()?)];
        }
        Ok(())
    }

    fn cpu_percent(&self) -> io::Result<f64> {
        let (begun, before) = (Instant::now(), outsider::cpu_time(&self.thread)?);
        thread::sleep(WATCHED);
        let used = outsider::cpu_time(&self.thread)?.saturating_sub(before);
        Ok(100.0 * used.as_secs_f64() / begun.elapsed().as_secs_f64())
    }

    fn stop(self) -> Result<(), Box<dyn Error>> {
        drop(self.stop);
        self.thread.join().map_err(|_| "the server panicked")??;
        Ok(())
    }
}

/// Looks at a queue from beside, until it is asked what it saw.
struct Depth {
    enough: Sender<()>,
    looks: JoinHandle<Vec<u32>>,
}

impl Depth {
    fn watch(port: u16) -> Self {
        let (enough, over) = channel();
        let looks = thread::spawn(move || {
            let mut seen = Vec::new();
            while over.recv_timeout(STEP) == Err(RecvTimeoutError::Timeout) {
                seen.extend(outsider::sockets(port).map(|sockets| sockets.queued));
            }
            seen
        });
        Self { enough, looks }
    }

    fn seen(self) -> Result<Vec<u32>, Box<dyn Error>> {
        drop(self.enough);
        self.looks.join().map_err(|_| "the look at the queue panicked".into())
    }
}

/// A listener whose queue has room for the crowd.
fn listen() -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

fn expect(fact: bool, wording: &str) -> Result<(), Box<dyn Error>> {
    if fact { Ok(()) } else { Err(format!("this did not come true: {wording}").into()) }
}
