//! One generation of the server: serves, starts its successor when it is told to, hands over, and ends.

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

/// A server that hears nothing for so long has been forgotten.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// How long the connections that are open have to end, once nobody new comes.
const LAST_WORDS: Duration = Duration::from_secs(20);

/// The names under which the listeners are handed over.
pub(crate) const NAMES: [&str; 2] = ["service", "control"];

struct Server {
    epoll: Epoll,
    service: EpollAcceptor<TcpListener, Trigger>,
    control: EpollAcceptor<UnixListener, LevelTriggered>,
    open: Open,
    generation: u64,
    /// Who is to take over, and who wants to know.
    successor: Option<(Child, UnixStream, UnixStream)>,
}

/// The connections that are open.
struct Open {
    connections: HashMap<u64, Connection<TcpStream, ()>>,
    next: u64,
    answered: u64,
}

/// What became of an event.
enum Then {
    GoOn,
    /// The successor serves.
    Leave,
    /// The service ends; who wants to know.
    End(UnixStream),
}

/// Serves until it is replaced or ended. `way generation [address]`: how the listeners come.
pub(crate) fn run(mut arguments: lexopt::Parser) -> Result<(), Box<dyn Error>> {
    use lexopt::ValueExt;
    let way: Way = arguments.value()?.parse()?;
    let generation = arguments.value()?.parse()?;
    // The stream to the predecessor, or to the conductor, is the standard input.
    let predecessor = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    predecessor.set_read_timeout(Some(FORGOTTEN))?;
    let mut listeners = match way {
        Way::Rights => handover::receive(&predecessor)?,
        _ => handover::from_env()?,
    };
    let service = match way {
        Way::Rebind => TcpListener::bind(arguments.value()?.parse::<SocketAddr>()?)?,
        _ => listeners.take_tcp("service")?,
    };
    let server = Server::begin(service, &mut listeners, generation)?;
    handover::confirm(&predecessor)?;
    server.serve()
}

impl Server {
    fn begin(service: TcpListener, listeners: &mut Listeners, generation: u64) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        // Each generation by another trigger: what hands over and what takes over do not depend on it.
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
            if self.epoll.wait(&mut events, Some(FORGOTTEN))?.count() == 0 {
                return Err("nobody came, and nobody ended this server".into());
            }
            let mut then = Then::GoOn;
            for event in &mut events {
                match event.token() {
                    SERVICE => self.open.welcome(&self.epoll, &mut self.service)?,
                    CONTROL => then = self.told()?,
                    SUCCESSOR => then = self.confirmed()?,
                    Token(key) => self.open.turn(key),
                }
            }
            match then {
                Then::GoOn => {}
                Then::Leave => return self.leave(events),
                Then::End(who) => return self.end(events, who),
            }
        }
    }

    /// Answers the conductor.
    fn told(&mut self) -> io::Result<Then> {
        let Some(asking) = self.control.ready().next() else { return Ok(Then::GoOn) };
        let (mut asking, ()) = asking?.into_parts();
        asking.set_nonblocking(false)?;
        asking.set_read_timeout(Some(FORGOTTEN))?;
        let mut command = String::new();
        asking.read_to_string(&mut command)?;
        match command.parse() {
            Ok(way) => {
                self.start_successor(way, asking)?;
                Ok(Then::GoOn)
            }
            Err(_) => Ok(Then::End(asking)),
        }
    }

    /// Starts the next generation, and goes on serving until that serves too.
    fn start_successor(&mut self, way: Way, asking: UnixStream) -> io::Result<()> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(FORGOTTEN))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["server", way.name(), &(self.generation + 1).to_string()]);
        command.stdin(Stdio::from(OwnedFd::from(theirs)));
        let (service, control) = (self.service.listener().as_fd(), self.control.listener().as_fd());
        let both = [(NAMES[0], service), (NAMES[1], control)];
        let child = match way {
            Way::Rights => {
                let child = command.spawn()?;
                handover::send(&ours, &both)?;
                child
            }
            Way::Rebind => {
                // What is done without a hand-over: the port is free for a moment.
                command.arg(self.service.listener().local_addr()?.to_string());
                let unused = TcpListener::bind("127.0.0.1:0")?;
                let service = Trigger::Level.on(unused).register(&self.epoll, SERVICE)?;
                drop(std::mem::replace(&mut self.service, service));
                handover::spawn(command, &[(NAMES[1], self.control.listener())])?
            }
            _ => handover::spawn(command, &both)?,
        };
        self.epoll.add(&ours, SUCCESSOR, Interest::IN)?;
        self.successor = Some((child, ours, asking));
        Ok(())
    }

    /// Hears from the successor: that it serves, or that it has failed.
    fn confirmed(&mut self) -> io::Result<Then> {
        let Some((mut child, stream, mut asking)) = self.successor.take() else { return Ok(Then::GoOn) };
        self.epoll.delete(&stream)?;
        match handover::await_confirmation(&stream) {
            Ok(()) => {
                asking.write_all(child.id().to_string().as_bytes())?;
                Ok(Then::Leave)
            }
            Err(error) => {
                let status = child.wait()?;
                asking.write_all(format!("the successor failed: {error}; {status}").as_bytes())?;
                Ok(Then::GoOn)
            }
        }
    }

    /// Leaves the listeners to the successor: deregistered first, then closed. Then the open connections end.
    fn leave(self, events: Events) -> Result<(), Box<dyn Error>> {
        let Self { epoll, service, control, open, generation, .. } = self;
        drop(service.into_listener());
        drop(control.into_listener());
        open.end(&epoll, events, generation)
    }

    /// Ends the service: there is no successor.
    fn end(self, mut events: Events, mut asking: UnixStream) -> Result<(), Box<dyn Error>> {
        let Self { epoll, service, control, mut open, generation, .. } = self;
        drop(control.into_listener());
        let mut ending = service.wind_down(Pending::Serve(Refusal::Reset), LAST_WORDS);
        while !ending.is_over() {
            epoll.wait(&mut events, Some(ending.timeout()))?;
            for event in &mut events {
                match event.token() {
                    SERVICE => open.welcome(&epoll, &mut ending)?,
                    Token(key) => open.turn(key),
                }
            }
        }
        let farewell = ending.finish();
        asking.write_all(format!("{farewell:?}").as_bytes())?;
        open.end(&epoll, events, generation)
    }
}

impl Open {
    fn welcome(
        &mut self,
        epoll: &Epoll,
        acceptor: &mut impl Acceptor<Stream = TcpStream, Permit = ()>,
    ) -> io::Result<()> {
        for connection in acceptor.ready() {
            let connection = connection?;
            let key = self.next;
            self.next += 1;
            epoll.add(&connection, Token(key), Interest::IN)?;
            self.connections.insert(key, connection);
        }
        Ok(())
    }

    /// Answers a request; a client that has its answer, or is gone, is let go.
    fn turn(&mut self, key: u64) {
        let Some(stream) = self.connections.get_mut(&key) else { return };
        let mut request = [0; REQUEST.len()];
        let alive = match stream.read(&mut request) {
            // So few bytes come together.
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

    /// Serves the connections that are open until they end, and says what was done.
    fn end(mut self, epoll: &Epoll, mut events: Events, generation: u64) -> Result<(), Box<dyn Error>> {
        let begun = Instant::now();
        while !self.connections.is_empty() && begun.elapsed() < LAST_WORDS {
            epoll.wait(&mut events, Some(LAST_WORDS.saturating_sub(begun.elapsed())))?;
            (&mut events).for_each(|event| self.turn(event.token().0));
        }
        let line = format!("{generation} {} {}\n", self.answered, self.connections.len());
        // One write, since others write to the same pipe.
        io::stdout().write_all(line.as_bytes())?;
        Ok(())
    }
}
