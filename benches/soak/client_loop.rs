//! Many clients on one thread: non-blocking sockets on an epoll.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use epoll_acceptor::{Epoll, Events, Interest, Token};
use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use socket2::{Domain, Socket, Type};

use crate::request::{Behavior, Leave, Request, Stats};

/// The request, and the reply.
pub(crate) const WORD: u8 = b'?';

/// Carries out a request.
pub(crate) fn run(request: Request) -> io::Result<Stats> {
    let mut client_loop = ClientLoop {
        epoll: Epoll::new()?,
        clients: Vec::new(),
        free: Vec::new(),
        deadlines: VecDeque::new(),
        begun: Instant::now(),
        opened: 0,
        open: 0,
        waiting: 0,
        staying: Vec::new(),
        stats: Stats::default(),
        request,
    };
    client_loop.run()?;
    Ok(client_loop.stats)
}

struct ClientLoop {
    request: Request,
    epoll: Epoll,
    clients: Vec<Slot>,
    free: Vec<u32>,
    /// When a client must be checked, with its slot and number; sorted by time, unless clients stay.
    deadlines: VecDeque<(Instant, u32, u32)>,
    begun: Instant,
    opened: u64,
    open: usize,
    waiting: usize,
    /// Answered clients that stay until the end of the round.
    staying: Vec<u32>,
    stats: Stats,
}

#[derive(Default)]
struct Slot {
    /// How many clients have had this slot: identifies events of closed ones.
    number: u32,
    client: Option<Client>,
}

struct Client {
    socket: Socket,
    begun: Instant,
    state: ClientState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ClientState {
    Connecting,
    Asked,
    Answered,
}

impl ClientLoop {
    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(512)?;
        loop {
            self.open_due()?;
            if self.open == 0 && self.is_over() {
                return Ok(());
            }
            self.epoll.wait(&mut events, Some(self.until_next()))?;
            for event in &mut events {
                let Token(token) = event.token();
                self.handle(halves(token))?;
            }
            self.check_deadlines()?;
        }
    }

    fn time_is_up(&self) -> bool {
        self.begun.elapsed().as_secs_f64() >= self.request.seconds
    }

    fn is_over(&self) -> bool {
        self.opened >= self.request.total || self.time_is_up()
    }

    /// How many clients may have been opened by now.
    fn due(&self) -> u64 {
        let Some(rate) = self.request.per_second else { return self.request.total };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
        let due = (self.begun.elapsed().as_secs_f64() * rate) as u64;
        due.min(self.request.total)
    }

    /// Opens the connections that are due, in small batches, so that the open ones are not starved.
    fn open_due(&mut self) -> io::Result<()> {
        let round_is_over = self.request.behavior == Behavior::Rounds && !self.staying.is_empty();
        if round_is_over && self.waiting == 0 && (self.open >= self.request.at_once || self.is_over()) {
            return self.end_round();
        }
        for _ in 0..64 {
            let full = self.open >= self.request.at_once || self.waiting >= self.request.unanswered_at_once;
            if full || self.is_over() || self.opened >= self.due() {
                break;
            }
            self.open_one()?;
        }
        Ok(())
    }

    fn open_one(&mut self) -> io::Result<()> {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.clients.push(Slot::default());
            u32::try_from(self.clients.len() - 1).expect("fewer clients than descriptors")
        });
        let number = self.clients[slot as usize].number;
        let (first, count) = self.request.from;
        let from =
            Ipv4Addr::from_bits(first.to_bits() + u32::try_from(self.opened % u64::from(count)).unwrap_or(0));
        self.opened += 1;
        let socket = match connect(from, self.request.to) {
            Ok(socket) => socket,
            Err(error) => {
                self.free.push(slot);
                self.failed(&error);
                return Ok(());
            }
        };
        self.epoll.add(&socket, token(slot, number), Interest::IN | Interest::OUT | Interest::ET)?;
        let begun = Instant::now();
        let patience = match self.request.behavior {
            Behavior::Quit(after) => Duration::from_millis(after),
            _ => Duration::from_secs_f64(self.request.patience),
        };
        self.deadlines.push_back((begun + patience, slot, number));
        self.clients[slot as usize].client = Some(Client { socket, begun, state: ClientState::Connecting });
        self.open += 1;
        self.waiting += 1;
        Ok(())
    }

    fn handle(&mut self, (slot, number): (u32, u32)) -> io::Result<()> {
        let entry = &mut self.clients[slot as usize];
        let Some(client) = entry.client.as_mut().filter(|_| entry.number == number) else { return Ok(()) };
        if client.state == ClientState::Connecting {
            match client.is_connected() {
                Ok(false) => return Ok(()),
                Ok(true) => self.stats.connected += 1,
                // Connected, and reset at once.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    self.stats.connected += 1;
                    return self.refused(slot);
                }
                Err(error) => {
                    self.failed(&error);
                    return self.close(slot, Leave::Resetting);
                }
            }
            if self.request.behavior == Behavior::Reset {
                self.stats.gone += 1;
                return self.close(slot, Leave::Resetting);
            }
            client.state = ClientState::Asked;
            // Fails if the server has refused the connection already; the read reports it.
            let _ = client.socket.write(&[WORD]);
        }
        let mut answer = [0; 8];
        match client.socket.read(&mut answer) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(()),
            Ok(length) if length > 0 && client.state == ClientState::Asked => self.answered(slot),
            Ok(length) if length > 0 => Ok(()),
            _ if client.state == ClientState::Answered => {
                self.stats.cut += 1;
                self.close(slot, Leave::Closing)
            }
            Ok(_) | Err(_) => self.refused(slot),
        }
    }

    fn answered(&mut self, slot: u32) -> io::Result<()> {
        self.stats.answered += 1;
        self.waiting -= 1;
        let entry = &mut self.clients[slot as usize];
        let client = entry.client.as_mut().expect("checked by the caller");
        client.state = ClientState::Answered;
        if self.request.waits {
            let now = Instant::now();
            let wait = now.duration_since(client.begun).as_secs_f64() * 1e3;
            self.stats.waits.push((now.duration_since(self.begun).as_secs_f64() * 1e3, wait));
        }
        let open_and_answered = (self.open - self.waiting) as u64;
        self.stats.most_at_once = self.stats.most_at_once.max(open_and_answered);
        match self.request.behavior {
            Behavior::Stay(time) => {
                self.deadlines.push_back((Instant::now() + Duration::from_millis(time), slot, entry.number));
                Ok(())
            }
            Behavior::Rounds => {
                self.staying.push(slot);
                Ok(())
            }
            Behavior::Ask | Behavior::Quit(_) | Behavior::Reset => self.leave(slot),
        }
    }

    fn end_round(&mut self) -> io::Result<()> {
        for slot in std::mem::take(&mut self.staying) {
            if self.clients[slot as usize].client.is_some() {
                self.leave(slot)?;
            }
        }
        self.stats.rounds += 1;
        if self.stats.rounds == 1 {
            self.stats.first_round = self.begun.elapsed().as_secs_f64();
        }
        Ok(())
    }

    /// Handles the clients whose patience is over, or that have stayed for long enough.
    fn check_deadlines(&mut self) -> io::Result<()> {
        let now = Instant::now();
        let all_close = self.request.gives_up && self.time_is_up();
        // With clients that stay, the deadlines are not sorted: check all of them.
        let mut later = VecDeque::new();
        let check_all = all_close || matches!(self.request.behavior, Behavior::Stay(_));
        while let Some((deadline, slot, number)) = self.deadlines.pop_front() {
            let entry = &self.clients[slot as usize];
            let Some(client) = entry.client.as_ref().filter(|_| entry.number == number) else { continue };
            let stays = matches!(self.request.behavior, Behavior::Stay(_));
            if deadline > now && !all_close {
                later.push_back((deadline, slot, number));
                if check_all { continue } else { break }
            }
            match client.state {
                // The deadline of its patience, from before the reply.
                ClientState::Answered if stays || all_close => self.leave(slot)?,
                ClientState::Answered => {}
                ClientState::Connecting => {
                    self.failed(&io::Error::from(ErrorKind::TimedOut));
                    self.close(slot, Leave::Resetting)?;
                }
                ClientState::Asked => {
                    let quits = matches!(self.request.behavior, Behavior::Quit(_)) || all_close;
                    *(if quits { &mut self.stats.gone } else { &mut self.stats.unanswered }) += 1;
                    self.leave(slot)?;
                }
            }
        }
        later.append(&mut self.deadlines);
        self.deadlines = later;
        Ok(())
    }

    fn until_next(&self) -> Duration {
        let next = match self.request.per_second {
            Some(rate) if !self.is_over() => Duration::from_secs_f64((0.5 / rate).min(0.01)),
            _ if self.opened < self.request.total && self.open < self.request.at_once => {
                Duration::from_millis(1)
            }
            _ => Duration::from_millis(10),
        };
        let has_room = self.open < self.request.at_once && self.waiting < self.request.unanswered_at_once;
        let at_once = self.request.per_second.is_none() && has_room && !self.is_over();
        if at_once { Duration::ZERO } else { next }
    }

    fn refused(&mut self, slot: u32) -> io::Result<()> {
        self.stats.refused += 1;
        self.close(slot, Leave::Closing)
    }

    fn failed(&mut self, error: &io::Error) {
        self.stats.failed += 1;
        self.stats.error.get_or_insert_with(|| error.to_string());
    }

    fn leave(&mut self, slot: u32) -> io::Result<()> {
        let how = match self.request.leave {
            Leave::Either if slot % 2 == 0 => Leave::Resetting,
            Leave::Either => Leave::Closing,
            one => one,
        };
        self.close(slot, how)
    }

    fn close(&mut self, slot: u32, how: Leave) -> io::Result<()> {
        let entry = &mut self.clients[slot as usize];
        entry.number = entry.number.wrapping_add(1);
        let client = entry.client.take().expect("an open client is closed once");
        if how == Leave::Resetting {
            client.socket.set_linger(Some(Duration::ZERO))?;
        }
        self.open -= 1;
        self.waiting -= usize::from(client.state != ClientState::Answered);
        self.free.push(slot);
        Ok(())
    }
}

impl Client {
    fn is_connected(&self) -> io::Result<bool> {
        if let Some(error) = self.socket.take_error()? {
            return Err(error);
        }
        match self.socket.peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn connect(from: Ipv4Addr, to: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
    // Choose the port at connect: an address then has all its ports for each destination.
    setsockopt(&socket, IpBindAddressNoPort, &true)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(nix::errno::Errno::EINPROGRESS as i32) => Err(error),
        _ => Ok(socket),
    }
}

fn token(slot: u32, number: u32) -> Token {
    Token(u64::from(number) << 32 | u64::from(slot))
}

#[expect(clippy::cast_possible_truncation, reason = "these are the halves")]
const fn halves(token: u64) -> (u32, u32) {
    (token as u32, (token >> 32) as u32)
}
