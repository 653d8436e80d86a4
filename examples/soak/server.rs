//! The server: one thread, one acceptor, and a service of one word.

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

use epoll_acceptor::{
    Acceptor, Admission, Connection, Control, Counters, Epoll, EpollAcceptor, Events, Interest, Token,
    Trigger, Waker, accept_queue, time_queued,
};
use socket2::{Domain, SockRef, Socket, Type};

use crate::crowd::WORD;

const LISTENER: Token = Token(0);
const STOP: Token = Token(1);
const FIRST_GUEST: u64 = 2;

/// What becomes of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Service {
    /// Answers at once, and stays until the client goes.
    Answer,
    /// Answers when this time is over, and closes.
    Takes(Duration),
    /// Has a thread answer it. Some of the threads panic instead, and so do some passes, with a connection in hand.
    Panics,
}

/// What the server does, for others to see.
#[derive(Debug, Default)]
pub(crate) struct Books {
    in_service: AtomicU32,
    peak: AtomicU32,
    pub(crate) answered: AtomicU64,
    /// How often the acceptor told that its listener is dead.
    pub(crate) deaths: AtomicU32,
    /// Waits that ended without an event: by a signal, or by their timeout.
    pub(crate) empty_waits: AtomicU64,
    pub(crate) panics: AtomicU64,
    /// Everything is answered at once from now on.
    hurry: AtomicU32,
    /// Of a service that takes time: when, after the first, and for how long it had been queued; in milliseconds.
    pub(crate) queued: Mutex<Vec<(f64, f64)>>,
}

/// A server in its thread.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) control: Control,
    pub(crate) books: Arc<Books>,
    /// A duplicate, to look at the queue.
    listener: TcpListener,
    stop: Waker,
    thread: JoinHandle<io::Result<()>>,
}

/// What is left of a server.
pub(crate) struct Ended {
    pub(crate) counters: Counters,
    pub(crate) peak: u32,
    pub(crate) queued: u32,
}

/// A listener on loopback with the longest queue that is allowed, or so long a one.
pub(crate) fn listen(backlog: i32, port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], port)).into())?;
    socket.listen(backlog)?;
    Ok(socket.into())
}

impl Server {
    /// Starts one; `build` makes the acceptor of the listener, on the epoll.
    pub(crate) fn start<A, P>(
        listener: TcpListener,
        service: Service,
        build: impl FnOnce(TcpListener, &Epoll, Token) -> io::Result<A>,
    ) -> io::Result<Self>
    where
        A: Acceptor<Stream = TcpStream, Permit = P> + Send + 'static,
        P: Send + 'static,
    {
        let (address, watched) = (listener.local_addr()?, listener.try_clone()?);
        let epoll = Epoll::new()?;
        let stop = Waker::new(&epoll, STOP)?;
        let acceptor = build(listener, &epoll, LISTENER)?;
        let (control, books) = (acceptor.control(), Arc::new(Books::default()));
        let (ready, is_ready) = channel();
        let desk = Desk {
            epoll,
            service,
            books: Arc::clone(&books),
            guests: Vec::new(),
            free: Vec::new(),
            due: VecDeque::new(),
            welcomed: 0,
            begun: None,
        };
        let thread = thread::Builder::new().name("server".into()).spawn(move || {
            let _ = ready.send(());
            desk.serve(acceptor)
        })?;
        is_ready.recv().map_err(io::Error::other)?;
        Ok(Self { address, control, books, listener: watched, stop, thread })
    }

    /// How many are in the accept queue.
    pub(crate) fn queued(&self) -> u32 {
        // A listener that was shut down has no queue.
        accept_queue(&self.listener).map_or(0, |queue| queue.depth)
    }

    pub(crate) fn in_service(&self) -> u32 {
        self.books.in_service.load(Ordering::Acquire)
    }

    /// Who is in the queue or in service has nothing more to wait for.
    pub(crate) fn hurry(&self) {
        self.books.hurry.store(1, Ordering::Release);
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
        self.books.hurry.store(2, Ordering::Release);
        self.stop.wake()?;
        self.thread.join().map_err(|_| "the server panicked")??;
        let (counters, peak) = (self.control.counters(), self.books.peak.load(Ordering::Acquire));
        Ok(Ended { counters, peak, queued })
    }
}

struct Desk<P> {
    epoll: Epoll,
    service: Service,
    books: Arc<Books>,
    /// By place. An event of one who has gone finds nobody, or one who has nothing to say.
    guests: Vec<Option<Guest<P>>>,
    free: Vec<usize>,
    /// Who is to be answered when; in order of time, since each takes as long as the other.
    due: VecDeque<(Instant, usize)>,
    welcomed: u64,
    /// When the first came.
    begun: Option<Instant>,
}

/// Counted out before its place is given back: the peak is never too high.
struct Guest<P> {
    _counted: Counted,
    connection: Connection<TcpStream, P>,
}

struct Counted(Arc<Books>);

impl Counted {
    fn new(books: &Arc<Books>) -> Self {
        let now = books.in_service.fetch_add(1, Ordering::AcqRel) + 1;
        books.peak.fetch_max(now, Ordering::AcqRel);
        Self(Arc::clone(books))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.in_service.fetch_sub(1, Ordering::AcqRel);
    }
}

impl<P: Send + 'static> Desk<P> {
    fn serve<A>(mut self, mut acceptor: A) -> io::Result<()>
    where
        A: Acceptor<Stream = TcpStream, Permit = P>,
    {
        let mut events = Events::with_capacity(256)?;
        loop {
            let until = self.due.front().map(|(due, _)| due.saturating_duration_since(Instant::now()));
            self.epoll.wait(&mut events, until)?;
            let mut any = false;
            for event in &mut events {
                any = true;
                match event.token() {
                    STOP if self.books.hurry.load(Ordering::Acquire) == 2 => return Ok(()),
                    STOP => {}
                    LISTENER => self.let_in(&mut acceptor)?,
                    Token(token) => self.hear(place(token)),
                }
            }
            self.books.empty_waits.fetch_add(u64::from(!any), Ordering::Relaxed);
            self.answer_those_due();
        }
    }

    fn let_in<A>(&mut self, acceptor: &mut A) -> io::Result<()>
    where
        A: Acceptor<Stream = TcpStream, Permit = P>,
    {
        // Of a pass that is left by a panic nothing is lost but the connection in hand.
        let pass = catch_unwind(AssertUnwindSafe(|| {
            for connection in acceptor.ready() {
                match connection {
                    Ok(connection) => self.welcome(connection)?,
                    Err(_) => {
                        self.books.deaths.fetch_add(1, Ordering::AcqRel);
                    }
                }
            }
            Ok(())
        }));
        pass.unwrap_or(Ok(()))
    }

    fn welcome(&mut self, connection: Connection<TcpStream, P>) -> io::Result<()> {
        let guest = Guest { _counted: Counted::new(&self.books), connection };
        self.welcomed += 1;
        if matches!(self.service, Service::Panics) {
            return self.hand_to_a_thread(guest, self.welcomed);
        }
        if matches!(self.service, Service::Takes(_)) {
            // Before anything is sent, which the kernel counts from then on.
            let queued = time_queued(&*guest.connection)?.as_secs_f64() * 1e3;
            let when = self.begun.get_or_insert_with(Instant::now).elapsed().as_secs_f64() * 1e3;
            self.books.queued.lock().unwrap_or_else(PoisonError::into_inner).push((when, queued));
        }
        let place = self.free.pop().unwrap_or_else(|| {
            self.guests.push(None);
            self.guests.len() - 1
        });
        self.epoll.add(&guest.connection, Token(FIRST_GUEST + place as u64), Interest::IN)?;
        self.guests[place] = Some(guest);
        Ok(())
    }

    fn hear(&mut self, place: usize) {
        let Some(guest) = self.guests[place].as_mut() else { return };
        let mut word = [0; 8];
        match guest.connection.read(&mut word) {
            Ok(length) if length > 0 => match self.service {
                Service::Takes(time) if self.books.hurry.load(Ordering::Acquire) == 0 => {
                    // Whether it goes meanwhile is seen when it is answered.
                    match self.epoll.delete(&guest.connection) {
                        Ok(()) => self.due.push_back((Instant::now() + time, place)),
                        Err(_) => self.part(place),
                    }
                }
                Service::Takes(_) => self.answer(place, true),
                Service::Answer | Service::Panics => self.answer(place, false),
            },
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Ok(_) | Err(_) => self.part(place),
        }
    }

    fn answer_those_due(&mut self) {
        let hurry = self.books.hurry.load(Ordering::Acquire) != 0;
        while let Some((due, place)) = self.due.pop_front() {
            if due > Instant::now() && !hurry {
                self.due.push_front((due, place));
                return;
            }
            self.answer(place, true);
        }
    }

    fn answer(&mut self, place: usize, close: bool) {
        let Some(guest) = self.guests[place].as_mut() else { return };
        // One byte fits. Who has gone is closed like the others.
        let is_there = guest.connection.write_all(&[WORD]).is_ok();
        self.books.answered.fetch_add(u64::from(is_there), Ordering::Relaxed);
        if close || !is_there {
            self.part(place);
        }
    }

    fn part(&mut self, place: usize) {
        self.guests[place] = None;
        self.free.push(place);
    }

    /// Every seventh pass panics with the connection in hand, every third of the threads with the one it serves.
    fn hand_to_a_thread(&self, mut guest: Guest<P>, number: u64) -> io::Result<()> {
        let books = Arc::clone(&self.books);
        if number % 7 == 0 {
            books.panics.fetch_add(1, Ordering::Relaxed);
            panic!("on purpose, in the pass");
        }
        guest.connection.set_nonblocking(false)?;
        guest.connection.set_read_timeout(Some(Duration::from_secs(10)))?;
        thread::Builder::new().spawn(move || {
            let mut word = [0; 8];
            if guest.connection.read(&mut word).is_ok_and(|length| length > 0) {
                if number % 3 == 0 {
                    books.panics.fetch_add(1, Ordering::Relaxed);
                    panic!("on purpose, in the thread");
                }
                let is_there = guest.connection.write_all(&word[..1]).is_ok();
                books.answered.fetch_add(u64::from(is_there), Ordering::Relaxed);
            }
        })?;
        Ok(())
    }
}

/// Of a guest, by its token.
fn place(token: u64) -> usize {
    usize::try_from(token - FIRST_GUEST).expect("tokens are given out here")
}

/// An acceptor with this trigger and this policy.
pub(crate) fn build<A: Admission>(
    trigger: Trigger,
    policy: A,
) -> impl FnOnce(TcpListener, &Epoll, Token) -> io::Result<EpollAcceptor<TcpListener, Trigger, A>> {
    move |listener, epoll, token| Ok(trigger.on(listener).admission(policy).register(epoll, token)?)
}
