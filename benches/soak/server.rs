//! The server: one thread, one acceptor, and a service that answers one byte.

pub(crate) mod member;

use std::collections::VecDeque;
use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::thread::{JoinHandleExt, RawPthread};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use epoll_acceptor::epoll::Waker;
use epoll_acceptor::socket::{accept_queue, time_queued};
use epoll_acceptor::{
    Acceptor, Connection, Control, Counters, Epoll, EpollAcceptor, Events, Filter, Gate, Interest, Token,
    Trigger,
};
use socket2::{Domain, SockRef, Socket, Type};

use crate::client_loop::WORD;

const LISTENER: Token = Token(0);
const STOP: Token = Token(1);
const FIRST_CONNECTION: u64 = 2;

/// Commands to the server's thread; 0: none.
const FINISH_QUICKLY: u32 = 1;
const STOP_SERVING: u32 = 2;

/// How a connection is served.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Service {
    /// Answers at once, and keeps the connection until the client closes.
    Answer,
    /// Answers after this time, and closes.
    Takes(Duration),
    /// Answers on a thread. Some threads panic instead, and some passes panic with a connection in hand.
    Panics,
}

/// What the server has done, for other threads.
#[derive(Debug, Default)]
pub(crate) struct ServerStats {
    in_service: AtomicU32,
    peak: AtomicU32,
    pub(crate) answered: AtomicU64,
    /// How often the acceptor reported that its listener is closed.
    pub(crate) deaths: AtomicU32,
    /// Waits that returned no event: after a signal, or the timeout.
    pub(crate) empty_waits: AtomicU64,
    pub(crate) panics: AtomicU64,
    command: AtomicU32,
    /// For `Service::Takes`: when each connection was accepted, since the first, and its queue time; in milliseconds.
    pub(crate) queued: Mutex<Vec<(f64, f64)>>,
}

/// A server on its own thread.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) control: Control,
    pub(crate) stats: Arc<ServerStats>,
    /// A duplicate, to read the length of the queue.
    listener: TcpListener,
    stop: Waker,
    thread: JoinHandle<io::Result<()>>,
}

/// The results of a server.
pub(crate) struct Ended {
    pub(crate) counters: Counters,
    pub(crate) peak: u32,
    pub(crate) queued: u32,
}

/// A listener on loopback with this backlog; port 0: any.
pub(crate) fn listen(backlog: i32, port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], port)).into())?;
    socket.listen(backlog)?;
    Ok(socket.into())
}

impl Server {
    /// Starts a server; `build` registers the acceptor.
    pub(crate) fn start<A, P>(
        listener: TcpListener,
        service: Service,
        build: impl FnOnce(TcpListener, &Epoll, Token) -> io::Result<A>,
    ) -> io::Result<Self>
    where
        A: Acceptor<Stream = TcpStream, Permit = P> + Send + 'static,
        P: Send + 'static,
    {
        let (address, duplicate) = (listener.local_addr()?, listener.try_clone()?);
        let epoll = Epoll::new()?;
        let stop = Waker::new(&epoll, STOP)?;
        let acceptor = build(listener, &epoll, LISTENER)?;
        let (control, stats) = (acceptor.control(), Arc::new(ServerStats::default()));
        let (ready, is_ready) = channel();
        let server_loop = ServerLoop::new(epoll, service, &stats);
        let thread = thread::Builder::new().name("server".into()).spawn(move || {
            let _ = ready.send(());
            server_loop.serve(acceptor)
        })?;
        is_ready.recv().map_err(io::Error::other)?;
        Ok(Self { address, control, stats, listener: duplicate, stop, thread })
    }

    /// Returns the length of the accept queue.
    pub(crate) fn queued(&self) -> u32 {
        // An error means that the listener was shut down.
        accept_queue(&self.listener).map_or(0, |queue| queue.depth)
    }

    pub(crate) fn in_service(&self) -> u32 {
        self.stats.in_service.load(Ordering::Acquire)
    }

    /// Answers everything at once from now on.
    pub(crate) fn finish_quickly(&self) {
        self.stats.command.store(FINISH_QUICKLY, Ordering::Release);
        let _ = self.stop.wake();
    }

    /// Shuts the listener down under the acceptor.
    pub(crate) fn shut_down(&self) -> io::Result<()> {
        SockRef::from(&self.listener).shutdown(std::net::Shutdown::Both)
    }

    pub(crate) fn thread(&self) -> RawPthread {
        self.thread.as_pthread_t()
    }

    pub(crate) fn stop(self) -> Result<Ended, Box<dyn Error>> {
        let queued = self.queued();
        self.stats.command.store(STOP_SERVING, Ordering::Release);
        self.stop.wake()?;
        self.thread.join().map_err(|_| "the server panicked")??;
        let (counters, peak) = (self.control.counters(), self.stats.peak.load(Ordering::Acquire));
        Ok(Ended { counters, peak, queued })
    }
}

struct ServerLoop<P> {
    epoll: Epoll,
    service: Service,
    stats: Arc<ServerStats>,
    /// By slot. A slot is reused without a generation: an event of a closed connection causes a needless read at most.
    connections: Vec<Option<Served<P>>>,
    free: Vec<usize>,
    /// When each connection is answered; sorted by time, because all take equally long.
    due: VecDeque<(Instant, usize)>,
    accepted: u64,
    /// When the first connection was accepted.
    begun: Option<Instant>,
}

/// Dropped in this order: counted out before its permit is released, so that the peak is never too high.
struct Served<P> {
    _counted: Counted,
    connection: Connection<TcpStream, P>,
}

struct Counted(Arc<ServerStats>);

impl Counted {
    fn new(stats: &Arc<ServerStats>) -> Self {
        let now = stats.in_service.fetch_add(1, Ordering::AcqRel) + 1;
        stats.peak.fetch_max(now, Ordering::AcqRel);
        Self(Arc::clone(stats))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.in_service.fetch_sub(1, Ordering::AcqRel);
    }
}

impl<P: Send + 'static> ServerLoop<P> {
    fn new(epoll: Epoll, service: Service, stats: &Arc<ServerStats>) -> Self {
        Self {
            epoll,
            service,
            stats: Arc::clone(stats),
            connections: Vec::new(),
            free: Vec::new(),
            due: VecDeque::new(),
            accepted: 0,
            begun: None,
        }
    }

    fn serve<A>(mut self, mut acceptor: A) -> io::Result<()>
    where
        A: Acceptor<Stream = TcpStream, Permit = P>,
    {
        let mut events = Events::with_capacity(256)?;
        while self.handle_events(&mut events, Some(&mut acceptor))? {}
        Ok(())
    }

    /// Waits once and handles the events; without an acceptor, those of its connections only. Returns `false` after the
    /// command to stop serving.
    fn handle_events<A>(&mut self, events: &mut Events, mut acceptor: Option<&mut A>) -> io::Result<bool>
    where
        A: Acceptor<Stream = TcpStream, Permit = P>,
    {
        let until = self.due.front().map(|(due, _)| due.saturating_duration_since(Instant::now()));
        self.epoll.wait(events, until)?;
        let (mut any, mut stops) = (false, false);
        for event in events {
            any = true;
            match event.token() {
                STOP => stops |= self.stats.command.load(Ordering::Acquire) == STOP_SERVING,
                LISTENER => acceptor.as_deref_mut().map_or(Ok(()), |acceptor| self.accept(acceptor))?,
                Token(token) => self.handle(slot(token)),
            }
        }
        self.stats.empty_waits.fetch_add(u64::from(!any), Ordering::Relaxed);
        self.answer_due();
        Ok(!stops)
    }

    fn accept<A>(&mut self, acceptor: &mut A) -> io::Result<()>
    where
        A: Acceptor<Stream = TcpStream, Permit = P>,
    {
        // A pass that panics loses only the connection in hand.
        let pass = catch_unwind(AssertUnwindSafe(|| {
            for connection in acceptor.ready() {
                match connection {
                    Ok(connection) => self.add(connection)?,
                    Err(_) => {
                        self.stats.deaths.fetch_add(1, Ordering::AcqRel);
                    }
                }
            }
            Ok(())
        }));
        pass.unwrap_or(Ok(()))
    }

    fn add(&mut self, connection: Connection<TcpStream, P>) -> io::Result<()> {
        let served = Served { _counted: Counted::new(&self.stats), connection };
        self.accepted += 1;
        if matches!(self.service, Service::Panics) {
            return self.serve_on_thread(served, self.accepted);
        }
        if matches!(self.service, Service::Takes(_)) {
            // Read it before the first send, which resets the kernel's timestamp.
            let queued = time_queued(&*served.connection)?.as_secs_f64() * 1e3;
            let when = self.begun.get_or_insert_with(Instant::now).elapsed().as_secs_f64() * 1e3;
            self.stats.queued.lock().unwrap_or_else(PoisonError::into_inner).push((when, queued));
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        self.epoll.add(&served.connection, Token(FIRST_CONNECTION + slot as u64), Interest::IN)?;
        self.connections[slot] = Some(served);
        Ok(())
    }

    fn handle(&mut self, slot: usize) {
        let Some(served) = self.connections[slot].as_mut() else { return };
        let mut word = [0; 8];
        match served.connection.read(&mut word) {
            Ok(length) if length > 0 => match self.service {
                Service::Takes(time) if self.stats.command.load(Ordering::Acquire) == 0 => {
                    // If the client closes meanwhile, the write fails.
                    match self.epoll.delete(&served.connection) {
                        Ok(()) => self.due.push_back((Instant::now() + time, slot)),
                        Err(_) => self.close(slot),
                    }
                }
                Service::Takes(_) => self.answer(slot, true),
                Service::Answer | Service::Panics => self.answer(slot, false),
            },
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Ok(_) | Err(_) => self.close(slot),
        }
    }

    fn answer_due(&mut self) {
        let at_once = self.stats.command.load(Ordering::Acquire) != 0;
        while let Some((due, slot)) = self.due.pop_front() {
            if due > Instant::now() && !at_once {
                self.due.push_front((due, slot));
                return;
            }
            self.answer(slot, true);
        }
    }

    fn answer(&mut self, slot: usize, close: bool) {
        let Some(served) = self.connections[slot].as_mut() else { return };
        // One byte fits into the send buffer; an error means that the client is gone.
        let is_sent = served.connection.write_all(&[WORD]).is_ok();
        self.stats.answered.fetch_add(u64::from(is_sent), Ordering::Relaxed);
        if close || !is_sent {
            self.close(slot);
        }
    }

    fn close(&mut self, slot: usize) {
        self.connections[slot] = None;
        self.free.push(slot);
    }

    /// Every seventh pass panics with the connection in hand, every third of the threads with the one it serves.
    fn serve_on_thread(&self, mut served: Served<P>, number: u64) -> io::Result<()> {
        let stats = Arc::clone(&self.stats);
        if number % 7 == 0 {
            stats.panics.fetch_add(1, Ordering::Relaxed);
            panic!("on purpose, in the pass");
        }
        served.connection.set_nonblocking(false)?;
        served.connection.set_read_timeout(Some(Duration::from_secs(10)))?;
        thread::Builder::new().spawn(move || {
            let mut word = [0; 8];
            if served.connection.read(&mut word).is_ok_and(|length| length > 0) {
                if number % 3 == 0 {
                    stats.panics.fetch_add(1, Ordering::Relaxed);
                    panic!("on purpose, in the thread");
                }
                let is_sent = served.connection.write_all(&word[..1]).is_ok();
                stats.answered.fetch_add(u64::from(is_sent), Ordering::Relaxed);
            }
        })?;
        Ok(())
    }
}

/// The slot of a token.
fn slot(token: u64) -> usize {
    usize::try_from(token - FIRST_CONNECTION).expect("a token of a connection")
}

/// Builds an acceptor with this trigger, gate and filter.
pub(crate) fn build<F: Filter>(
    trigger: Trigger,
    gate: &Gate,
    filter: F,
) -> impl FnOnce(TcpListener, &Epoll, Token) -> io::Result<EpollAcceptor<TcpListener, ((), F)>> {
    move |listener, epoll, token| Ok(trigger.on(listener).gate(gate).filter(filter).register(epoll, token)?)
}
