//! One generation of the server: serves, starts its successor on command, hands over, and ends.

use std::collections::HashMap;
use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use epoll_acceptor::handover::{self, Listeners};
use epoll_acceptor::{
    Acceptor, Connection, Epoll, EpollAcceptor, Events, Interest, LevelTriggered, Pending, Refusal, Token,
    Trigger,
};

use crate::Way;
use crate::clients::{ANSWER, REQUEST};

const SERVICE: Token = Token(u64::MAX);
const CONTROL: Token = Token(u64::MAX - 1);
const SUCCESSOR: Token = Token(u64::MAX - 2);

/// A server without any event for this long was orphaned.
const ORPHANED: Duration = Duration::from_secs(60);
/// How long the open connections have to end, once no more are accepted.
const WITHIN: Duration = Duration::from_secs(20);

/// The names under which the listeners are handed over.
pub(crate) const NAMES: [&str; 2] = ["service", "control"];

struct Server {
    epoll: Epoll,
    service: EpollAcceptor<TcpListener>,
    control: EpollAcceptor<UnixListener>,
    open: Open,
    generation: u64,
    /// Started, and not confirmed yet.
    successor: Option<Successor>,
}

struct Successor {
    process: Child,
    /// Readable when it has confirmed, or ended.
    confirmation: UnixStream,
    /// Where the conductor waits for the reply to its command.
    reply_to: UnixStream,
}

/// The connections that are open.
struct Open {
    connections: HashMap<u64, Connection<TcpStream>>,
    next: u64,
    answered: u64,
}

/// What to do after an event.
enum Next {
    Serve,
    /// The successor serves.
    Leave,
    /// The service ends; the report is sent here.
    End(UnixStream),
}

/// Serves until it is replaced or ended. The arguments are `way generation [address]`.
pub(crate) fn run(mut arguments: lexopt::Parser) -> Result<(), Box<dyn Error>> {
    use lexopt::ValueExt;
    let way: Way = arguments.value()?.parse()?;
    let generation = arguments.value()?.parse()?;
    // The stream to the predecessor, or to the conductor, is the standard input.
    let predecessor = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    predecessor.set_read_timeout(Some(ORPHANED))?;
    let mut listeners = match way {
        Way::Rights => handover::receive(&predecessor)?,
        _ => inherited_listeners()?,
    };
    let service = match way {
        Way::Rebind => TcpListener::bind(arguments.value()?.parse::<SocketAddr>()?)?,
        _ => listeners.take_tcp("service")?,
    };
    let server = Server::begin(service, &mut listeners, generation)?;
    handover::confirm(&predecessor)?;
    server.serve()
}

/// Takes the listeners that this process inherited.
#[allow(unsafe_code, reason = "takes ownership of descriptors by their number")]
fn inherited_listeners() -> io::Result<Listeners> {
    // SAFETY: `handover::spawn` set the variables, and only this function takes the descriptors.
    unsafe { handover::from_env() }
}

impl Server {
    fn begin(service: TcpListener, listeners: &mut Listeners, generation: u64) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        // Another trigger in each generation: a handover does not depend on it.
        let triggers = [Trigger::Level, Trigger::Edge, Trigger::Exclusive];
        let trigger = triggers[usize::try_from(generation).unwrap_or(0) % triggers.len()];
        let service = trigger.on(service).register(&epoll, SERVICE)?;
        let control = LevelTriggered::on(listeners.take_unix("control")?).register(&epoll, CONTROL)?;
        let open = Open { connections: HashMap::new(), next: 0, answered: 0 };
        Ok(Self { epoll, service, control, open, generation, successor: None })
    }

    fn serve(mut self) -> Result<(), Box<dyn Error>> {
        let mut events = Events::with_capacity(256)?;
        loop {
            if self.epoll.wait(&mut events, Some(ORPHANED))?.count() == 0 {
                return Err("no client and no command for 60 seconds: this server was orphaned".into());
            }
            let mut next = Next::Serve;
            for event in &mut events {
                match event.token() {
                    SERVICE => self.open.accept(&self.epoll, &mut self.service)?,
                    CONTROL => next = self.obey()?,
                    SUCCESSOR => next = self.confirmed()?,
                    Token(key) => self.open.answer(key),
                }
            }
            match next {
                Next::Serve => {}
                Next::Leave => return self.leave(events),
                Next::End(reply_to) => return self.end(events, reply_to),
            }
        }
    }

    /// Carries out a command of the conductor.
    fn obey(&mut self) -> io::Result<Next> {
        let Some(connection) = self.control.ready().next() else { return Ok(Next::Serve) };
        let (mut stream, _permit) = connection?.into_parts();
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(ORPHANED))?;
        let mut command = String::new();
        stream.read_to_string(&mut command)?;
        match command.parse() {
            Ok(way) => {
                self.start_successor(way, stream)?;
                Ok(Next::Serve)
            }
            Err(_) => Ok(Next::End(stream)),
        }
    }

    /// Starts the next generation; this one serves until the next one confirms.
    fn start_successor(&mut self, way: Way, reply_to: UnixStream) -> io::Result<()> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(ORPHANED))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["server", way.name(), &(self.generation + 1).to_string()]);
        command.stdin(Stdio::from(OwnedFd::from(theirs)));
        let (service, control) = (self.service.listener().as_fd(), self.control.listener().as_fd());
        let both = [(NAMES[0], service), (NAMES[1], control)];
        let process = match way {
            Way::Rights => {
                let child = command.spawn()?;
                handover::send(&ours, &both)?;
                child
            }
            Way::Rebind => {
                // Without a handover nothing listens on the port for a moment.
                command.arg(self.service.listener().local_addr()?.to_string());
                let unused = TcpListener::bind("127.0.0.1:0")?;
                let service = Trigger::Level.on(unused).register(&self.epoll, SERVICE)?;
                drop(std::mem::replace(&mut self.service, service));
                handover::spawn(command, &[(NAMES[1], self.control.listener())])?
            }
            _ => handover::spawn(command, &both)?,
        };
        self.epoll.add(&ours, SUCCESSOR, Interest::IN)?;
        self.successor = Some(Successor { process, confirmation: ours, reply_to });
        Ok(())
    }

    /// The successor serves, or has failed.
    fn confirmed(&mut self) -> io::Result<Next> {
        let Some(successor) = self.successor.take() else { return Ok(Next::Serve) };
        let Successor { mut process, confirmation, mut reply_to } = successor;
        self.epoll.delete(&confirmation)?;
        match handover::await_confirmation(&confirmation) {
            Ok(()) => {
                reply_to.write_all(process.id().to_string().as_bytes())?;
                Ok(Next::Leave)
            }
            Err(error) => {
                let status = process.wait()?;
                reply_to.write_all(format!("the successor failed: {error}; {status}").as_bytes())?;
                Ok(Next::Serve)
            }
        }
    }

    /// Leaves the listeners to the successor: deregisters them, then closes its own descriptors. Then waits for the open
    /// connections.
    fn leave(self, events: Events) -> Result<(), Box<dyn Error>> {
        let Self { epoll, service, control, open, generation, .. } = self;
        drop(service.into_listener());
        drop(control.into_listener());
        open.end(&epoll, events, generation)
    }

    /// Ends the service, without a successor.
    fn end(self, mut events: Events, mut reply_to: UnixStream) -> Result<(), Box<dyn Error>> {
        let Self { epoll, mut service, control, mut open, generation, .. } = self;
        drop(control.into_listener());
        service.control().shutdown_gracefully(Pending::Serve(Refusal::Reset), WITHIN);
        while !service.state().is_terminal() {
            epoll.wait(&mut events, None)?;
            for event in &mut events {
                match event.token() {
                    SERVICE => open.accept(&epoll, &mut service)?,
                    Token(key) => open.answer(key),
                }
            }
        }
        reply_to.write_all(format!("{:?}", service.shutdown_report()).as_bytes())?;
        open.end(&epoll, events, generation)
    }
}

impl Open {
    fn accept(&mut self, epoll: &Epoll, acceptor: &mut EpollAcceptor<TcpListener>) -> io::Result<()> {
        for connection in acceptor.ready() {
            let connection = connection?;
            let key = self.next;
            self.next += 1;
            epoll.add(&connection, Token(key), Interest::IN)?;
            self.connections.insert(key, connection);
        }
        Ok(())
    }

    /// Answers a request, or closes when the client has.
    fn answer(&mut self, key: u64) {
        let Some(stream) = self.connections.get_mut(&key) else { return };
        let mut request = [0; REQUEST.len()];
        let alive = match stream.read(&mut request) {
            // Eight bytes arrive in one segment.
            Ok(length) if request[..length] == *REQUEST => {
                self.answered += 1;
                let mut answer = [0; 8];
                answer[..4].copy_from_slice(&std::process::id().to_le_bytes());
                answer[4..].copy_from_slice(ANSWER);
                stream.write_all(&answer).is_ok()
            }
            Err(error) => error.kind() == ErrorKind::WouldBlock,
            Ok(_) => false,
        };
        if !alive {
            self.connections.remove(&key);
        }
    }

    /// Serves the open connections until they end, and prints the result.
    fn end(mut self, epoll: &Epoll, mut events: Events, generation: u64) -> Result<(), Box<dyn Error>> {
        let begun = Instant::now();
        while !self.connections.is_empty() && begun.elapsed() < WITHIN {
            epoll.wait(&mut events, Some(WITHIN.saturating_sub(begun.elapsed())))?;
            (&mut events).for_each(|event| self.answer(event.token().0));
        }
        let line = format!("{generation} {} {}\n", self.answered, self.connections.len());
        // In one write: other processes write to the same pipe.
        io::stdout().write_all(line.as_bytes())?;
        Ok(())
    }
}
