//! What happens in the demonstration: a server in a child process, and its clients.

use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use socket2::Type;

use super::server::{BUSY, ERRAND, Loop};
use crate::ordeal::client::{Client, Door, Fate, Manner, Speech};
use crate::see::{Diag, Listener, Waiting};

/// How many come at once; half of them quit.
pub(crate) const CROWD: usize = 40;
/// What takes longer than this does not happen.
const BOUND: Duration = Duration::from_secs(20);
const TICK: Duration = Duration::from_millis(2);

/// A server in a child process; it ends with this.
pub(crate) struct Server {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    diag: Diag,
    door: Door,
    pub(crate) port: u16,
    /// Those of the crowd who have not quit and have not been answered.
    crowd: Vec<Client>,
    pub(crate) crowd_answered: usize,
    pub(crate) crowd_refused: usize,
}

/// An accept queue: how many wait, how many of them are dead, how many may wait.
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
        let stdout = child.stdout.take().ok_or_else(|| io::Error::other("a child without its output"))?;
        let mut server = Self {
            child,
            stdin,
            stdout: BufReader::new(stdout),
            diag: Diag::new()?,
            door: Door { address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into(), kind: Type::STREAM },
            port: 0,
            crowd: Vec::new(),
            crowd_answered: 0,
            crowd_refused: 0,
        };
        server.port = server.line()?.parse().map_err(io::Error::other)?;
        server.door.address = SocketAddr::from((Ipv4Addr::LOCALHOST, server.port)).into();
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

    /// A client who is served at once or, after so long, not.
    pub(crate) fn visit(&mut self, says: &[u8], patience: Duration) -> io::Result<(Client, Fate)> {
        let speech = speech(says);
        let mut client = Client::call(&self.door)?;
        let began = Instant::now();
        loop {
            client.step(Some(&speech))?;
            self.attend()?;
            let fate = client.fate(Manner::Answers);
            if fate != Fate::Waits || began.elapsed() > patience {
                return Ok((client, fate));
            }
            thread::sleep(TICK);
        }
    }

    /// While the server is busy with one request, a crowd comes. When this returns it is in the queue.
    pub(crate) fn crowd_while_busy(&mut self, held: &mut Client) -> io::Result<Queue> {
        held.say(ERRAND)?;
        if self.line()? != BUSY {
            return Err(io::Error::other("the server did not begin its errand"));
        }
        for number in 0..CROWD {
            let mut client = Client::call(&self.door)?;
            if number % 2 == 1 {
                client.step(Some(&speech(b"hello\n")))?;
            }
            self.crowd.push(client);
        }
        self.until("the crowd is in the queue", |queue| queue.queued == CROWD)
    }

    /// Lets the server go on, and waits until it has done with the crowd what it will do.
    pub(crate) fn go_on(&mut self) -> io::Result<Queue> {
        if let Some(stdin) = &mut self.stdin {
            stdin.write_all(b"\n")?;
        }
        let (mut last, mut since) = (self.queue()?, Instant::now());
        while since.elapsed() < Duration::from_millis(300) {
            thread::sleep(TICK);
            let now = self.queue()?;
            if now != last {
                (last, since) = (now, Instant::now());
            }
        }
        Ok(last)
    }

    /// Half of the crowd loses patience.
    pub(crate) fn half_quit(&mut self) -> io::Result<Queue> {
        let mut number = 0;
        self.crowd.retain(|_| {
            number += 1;
            number % 2 == 0
        });
        self.until("the dead are in the queue", |queue| queue.dead + 1 >= CROWD / 2)
    }

    /// Waits until nobody waits any more.
    pub(crate) fn until_all_served(&mut self) -> io::Result<Queue> {
        let queue = self.until("all are served", |queue| queue.queued == 0)?;
        // Taken is not yet answered.
        let began = Instant::now();
        while !self.crowd.is_empty() && began.elapsed() < BOUND {
            thread::sleep(TICK);
            self.attend()?;
        }
        Ok(queue)
    }

    fn until(&mut self, wording: &str, fact: impl Fn(&Queue) -> bool) -> io::Result<Queue> {
        let began = Instant::now();
        loop {
            self.attend()?;
            let queue = self.queue()?;
            if fact(&queue) {
                return Ok(queue);
            }
            if began.elapsed() > BOUND {
                return Err(io::Error::other(format!("this did not come true: {wording}")));
            }
            thread::sleep(TICK);
        }
    }

    /// Who of the crowd is answered leaves.
    fn attend(&mut self) -> io::Result<()> {
        let (mut answered, mut refused) = (0, 0);
        self.crowd.iter_mut().try_for_each(|client| client.step(None))?;
        self.crowd.retain(|client| {
            let fate = client.fate(Manner::Answers);
            answered += usize::from(fate == Fate::Answered);
            refused += usize::from(fate == Fate::Refused);
            fate == Fate::Waits
        });
        self.crowd_answered += answered;
        self.crowd_refused += refused;
        Ok(())
    }

    pub(crate) fn queue(&self) -> io::Result<Queue> {
        let listeners = Listener::inet(&self.diag, Some(self.port))?;
        let listener = listeners.first().ok_or_else(|| io::Error::other("the server is gone"))?;
        let waiting = Waiting::of_port(&self.diag, self.port)?;
        let dead = waiting.iter().filter(|waiting| waiting.is_unowned() && waiting.close_wait).count();
        Ok(Queue { queued: listener.queued as usize, dead, capacity: listener.capacity() as usize })
    }

    /// Asks the doctor, in its own words.
    pub(crate) fn doctor(&self) -> io::Result<Option<i32>> {
        let mut command = Command::new(env::current_exe()?);
        Ok(command.args(["doctor", &self.port.to_string()]).status()?.code())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It ends with its standard input; if it is busy, this ends it.
        drop(self.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn speech(text: &[u8]) -> Speech {
    Speech { text: text.to_vec(), quiet: Duration::ZERO }
}
