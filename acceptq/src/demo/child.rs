//! A server in a child process, and its clients.

use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use socket2::Type;

use super::server::{BUSY, Loop, SLOW_REQUEST};
use crate::probe::{Connection, Diag, Listener};
use crate::stress::client::{Behavior, Client, Endpoint, Outcome, Request};

/// The number of clients that connect at once. Half of them disconnect.
pub(crate) const CLIENTS: usize = 40;
/// The time limit of each step.
const TIMEOUT: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// A server in a child process. Dropping it kills the child.
pub(crate) struct Server {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    diag: Diag,
    endpoint: Endpoint,
    pub(crate) port: u16,
    /// The clients that are still connected and unanswered.
    clients: Vec<Client>,
    pub(crate) answered: usize,
    pub(crate) refused: usize,
}

/// The accept queue: its length, the dead connections in it, and its capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Queue {
    pub(crate) queued: usize,
    pub(crate) dead: usize,
    pub(crate) capacity: usize,
}

impl Server {
    pub(crate) fn start(accept_loop: Loop) -> io::Result<Self> {
        let word = match accept_loop {
            Loop::Faulty => "faulty",
            Loop::Acceptor => "acceptor",
        };
        let mut command = Command::new(env::current_exe()?);
        command.args(["demo-server", word]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let stdin = child.stdin.take();
        let stdout =
            child.stdout.take().ok_or_else(|| io::Error::other("the child process has no stdout"))?;
        let mut server = Self {
            child,
            stdin,
            stdout: BufReader::new(stdout),
            diag: Diag::new()?,
            endpoint: Endpoint {
                address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into(),
                kind: Type::STREAM,
            },
            port: 0,
            clients: Vec::new(),
            answered: 0,
            refused: 0,
        };
        server.port = server.line()?.parse().map_err(io::Error::other)?;
        server.endpoint.address = SocketAddr::from((Ipv4Addr::LOCALHOST, server.port)).into();
        Ok(server)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        Ok(line.trim().into())
    }

    /// Connects a client and waits for its outcome, at most for `patience`.
    pub(crate) fn request(&mut self, bytes: &[u8], patience: Duration) -> io::Result<(Client, Outcome)> {
        let client_request = client_request(bytes);
        let mut client = Client::start(&self.endpoint)?;
        let began = Instant::now();
        loop {
            client.step(Some(&client_request))?;
            self.poll_clients()?;
            let outcome = client.outcome(Behavior::Answers);
            if outcome != Outcome::Pending || began.elapsed() > patience {
                return Ok((client, outcome));
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Blocks the server with a slow request, connects the clients, and waits until all are queued.
    pub(crate) fn connect_while_busy(&mut self, held: &mut Client) -> io::Result<Queue> {
        held.send(SLOW_REQUEST)?;
        if self.line()? != BUSY {
            return Err(io::Error::other("the server did not start the slow request"));
        }
        for number in 0..CLIENTS {
            let mut client = Client::start(&self.endpoint)?;
            if number % 2 == 1 {
                client.step(Some(&client_request(b"hello\n")))?;
            }
            self.clients.push(client);
        }
        self.wait_for("all clients are queued", |queue| queue.queued == CLIENTS)
    }

    /// Unblocks the server and waits until its queue stops changing.
    pub(crate) fn resume(&mut self) -> io::Result<Queue> {
        if let Some(stdin) = &mut self.stdin {
            stdin.write_all(b"\n")?;
        }
        let (mut last, mut since) = (self.queue()?, Instant::now());
        while since.elapsed() < Duration::from_millis(300) {
            thread::sleep(POLL_INTERVAL);
            let now = self.queue()?;
            if now != last {
                (last, since) = (now, Instant::now());
            }
        }
        Ok(last)
    }

    pub(crate) fn disconnect_half(&mut self) -> io::Result<Queue> {
        let mut number = 0;
        self.clients.retain(|_| {
            number += 1;
            number % 2 == 0
        });
        self.wait_for("the closed connections show as dead", |queue| queue.dead + 1 >= CLIENTS / 2)
    }

    /// Waits until the queue is empty and every client has an outcome.
    pub(crate) fn wait_until_served(&mut self) -> io::Result<Queue> {
        let queue = self.wait_for("the queue is empty", |queue| queue.queued == 0)?;
        // An accepted client may still be unanswered.
        let began = Instant::now();
        while !self.clients.is_empty() && began.elapsed() < TIMEOUT {
            thread::sleep(POLL_INTERVAL);
            self.poll_clients()?;
        }
        Ok(queue)
    }

    fn wait_for(&mut self, description: &str, condition: impl Fn(&Queue) -> bool) -> io::Result<Queue> {
        let began = Instant::now();
        loop {
            self.poll_clients()?;
            let queue = self.queue()?;
            if condition(&queue) {
                return Ok(queue);
            }
            if began.elapsed() > TIMEOUT {
                return Err(io::Error::other(format!("timed out waiting until {description}")));
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Counts and disconnects the clients that were answered or refused.
    fn poll_clients(&mut self) -> io::Result<()> {
        let (mut answered, mut refused) = (0, 0);
        self.clients.iter_mut().try_for_each(|client| client.step(None))?;
        self.clients.retain(|client| {
            let outcome = client.outcome(Behavior::Answers);
            answered += usize::from(outcome == Outcome::Answered);
            refused += usize::from(outcome == Outcome::Refused);
            outcome == Outcome::Pending
        });
        self.answered += answered;
        self.refused += refused;
        Ok(())
    }

    pub(crate) fn queue(&self) -> io::Result<Queue> {
        let listeners = Listener::inet(&self.diag, Some(self.port))?;
        let listener = listeners.first().ok_or_else(|| io::Error::other("the server has exited"))?;
        let waiting = Connection::of_port(&self.diag, self.port)?;
        let dead = waiting.iter().filter(|waiting| waiting.is_unowned() && waiting.close_wait).count();
        Ok(Queue { queued: listener.queued as usize, dead, capacity: listener.capacity() as usize })
    }

    /// Runs `acceptq doctor` on the server. Returns its exit status.
    pub(crate) fn doctor(&self) -> io::Result<Option<i32>> {
        Ok(self.start_doctor()?.wait()?.code())
    }

    /// As `doctor`, while clients connect one after the other.
    pub(crate) fn doctor_under_load(&mut self) -> io::Result<Option<i32>> {
        let mut doctor = self.start_doctor()?;
        loop {
            let (client, _) = self.request(b"hello\n", Duration::from_millis(500))?;
            // Longer than two intervals between samples of the doctor.
            thread::sleep(Duration::from_millis(300));
            drop(client);
            if let Some(status) = doctor.try_wait()? {
                return Ok(status.code());
            }
        }
    }

    fn start_doctor(&self) -> io::Result<Child> {
        Command::new(env::current_exe()?).args(["doctor", &self.port.to_string()]).spawn()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It exits at end of file on stdin, unless it is blocked.
        drop(self.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn client_request(text: &[u8]) -> Request {
    Request { payload: text.to_vec(), delay: Duration::ZERO }
}
