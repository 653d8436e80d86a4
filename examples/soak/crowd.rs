//! A crowd of clients on one thread: non-blocking sockets on an epoll.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use epoll_acceptor::{Epoll, Events, Interest, Token};
use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use socket2::{Domain, Socket, Type};

use crate::order::{Conduct, Leave, Order, Tally};

/// What is asked, and what is answered.
pub(crate) const WORD: u8 = b'?';

/// Carries an order out.
pub(crate) fn run(order: Order) -> io::Result<Tally> {
    let mut crowd = Crowd {
        epoll: Epoll::new()?,
        clients: Vec::new(),
        free: Vec::new(),
        deadlines: VecDeque::new(),
        begun: Instant::now(),
        made: 0,
        inside: 0,
        waiting: 0,
        staying: Vec::new(),
        tally: Tally::default(),
        order,
    };
    crowd.run()?;
    Ok(crowd.tally)
}

struct Crowd {
    order: Order,
    epoll: Epoll,
    clients: Vec<Place>,
    free: Vec<u32>,
    /// When somebody has to be looked at, whatever happens: its place and its number. In order of time.
    deadlines: VecDeque<(Instant, u32, u32)>,
    begun: Instant,
    made: u64,
    inside: usize,
    waiting: usize,
    /// Who has an answer and waits for the end of the round.
    staying: Vec<u32>,
    tally: Tally,
}

#[derive(Default)]
struct Place {
    /// How many have had this place: an event of one who is gone is nobody else's.
    number: u32,
    client: Option<Client>,
}

struct Client {
    socket: Socket,
    begun: Instant,
    state: Stand,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stand {
    Connecting,
    Asked,
    Answered,
}

impl Crowd {
    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(512)?;
        loop {
            self.invite()?;
            if self.inside == 0 && self.is_over() {
                return Ok(());
            }
            self.epoll.wait(&mut events, Some(self.until_next()))?;
            for event in &mut events {
                let Token(token) = event.token();
                self.look(halves(token))?;
            }
            self.look_at_the_clock()?;
        }
    }

    fn time_is_up(&self) -> bool {
        self.begun.elapsed().as_secs_f64() >= self.order.seconds
    }

    fn is_over(&self) -> bool {
        self.made >= self.order.total || self.time_is_up()
    }

    /// How many may have come by now.
    fn due(&self) -> u64 {
        let Some(rate) = self.order.per_second else { return self.order.total };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
        let due = (self.begun.elapsed().as_secs_f64() * rate) as u64;
        due.min(self.order.total)
    }

    /// Lets new clients come, in small lots, so that those who are there are not forgotten.
    fn invite(&mut self) -> io::Result<()> {
        let round_is_over = self.order.conduct == Conduct::Rounds && !self.staying.is_empty();
        if round_is_over && self.waiting == 0 && (self.inside >= self.order.at_once || self.is_over()) {
            return self.end_round();
        }
        for _ in 0..64 {
            let full = self.inside >= self.order.at_once || self.waiting >= self.order.unanswered_at_once;
            if full || self.is_over() || self.made >= self.due() {
                break;
            }
            self.open()?;
        }
        Ok(())
    }

    fn open(&mut self) -> io::Result<()> {
        let place = self.free.pop().unwrap_or_else(|| {
            self.clients.push(Place::default());
            u32::try_from(self.clients.len() - 1).expect("fewer clients than descriptors")
        });
        let number = self.clients[place as usize].number;
        let (first, count) = self.order.from;
        let from =
            Ipv4Addr::from_bits(first.to_bits() + u32::try_from(self.made % u64::from(count)).unwrap_or(0));
        self.made += 1;
        let socket = match connect(from, self.order.to) {
            Ok(socket) => socket,
            Err(error) => {
                self.free.push(place);
                self.failed(&error);
                return Ok(());
            }
        };
        self.epoll.add(&socket, token(place, number), Interest::IN | Interest::OUT | Interest::ET)?;
        let begun = Instant::now();
        let patience = match self.order.conduct {
            Conduct::Quit(after) => Duration::from_millis(after),
            _ => Duration::from_secs_f64(self.order.patience),
        };
        self.deadlines.push_back((begun + patience, place, number));
        self.clients[place as usize].client = Some(Client { socket, begun, state: Stand::Connecting });
        self.inside += 1;
        self.waiting += 1;
        Ok(())
    }

    fn look(&mut self, (place, number): (u32, u32)) -> io::Result<()> {
        let slot = &mut self.clients[place as usize];
        let Some(client) = slot.client.as_mut().filter(|_| slot.number == number) else { return Ok(()) };
        if client.state == Stand::Connecting {
            match client.is_connected() {
                Ok(false) => return Ok(()),
                Ok(true) => self.tally.connected += 1,
                // Connected, and reset before anybody looked.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    self.tally.connected += 1;
                    return self.refused(place);
                }
                Err(error) => {
                    self.failed(&error);
                    return self.close(place, Leave::Resetting);
                }
            }
            if self.order.conduct == Conduct::Reset {
                self.tally.gone += 1;
                return self.close(place, Leave::Resetting);
            }
            client.state = Stand::Asked;
            // Who was refused already cannot write any more: the answer will tell.
            let _ = client.socket.write(&[WORD]);
        }
        let mut answer = [0; 8];
        match client.socket.read(&mut answer) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(()),
            Ok(length) if length > 0 && client.state == Stand::Asked => self.answered(place),
            Ok(length) if length > 0 => Ok(()),
            _ if client.state == Stand::Answered => {
                self.tally.cut += 1;
                self.close(place, Leave::Closing)
            }
            Ok(_) | Err(_) => self.refused(place),
        }
    }

    fn answered(&mut self, place: u32) -> io::Result<()> {
        self.tally.answered += 1;
        self.waiting -= 1;
        let slot = &mut self.clients[place as usize];
        let client = slot.client.as_mut().expect("it was just looked at");
        client.state = Stand::Answered;
        if self.order.waits {
            let now = Instant::now();
            let wait = now.duration_since(client.begun).as_secs_f64() * 1e3;
            self.tally.waits.push((now.duration_since(self.begun).as_secs_f64() * 1e3, wait));
        }
        let inside_and_answered = (self.inside - self.waiting) as u64;
        self.tally.most_at_once = self.tally.most_at_once.max(inside_and_answered);
        match self.order.conduct {
            Conduct::Stay(time) => {
                self.deadlines.push_back((Instant::now() + Duration::from_millis(time), place, slot.number));
                Ok(())
            }
            Conduct::Rounds => {
                self.staying.push(place);
                Ok(())
            }
            Conduct::Ask | Conduct::Quit(_) | Conduct::Reset => self.leave(place),
        }
    }

    fn end_round(&mut self) -> io::Result<()> {
        for place in std::mem::take(&mut self.staying) {
            if self.clients[place as usize].client.is_some() {
                self.leave(place)?;
            }
        }
        self.tally.rounds += 1;
        if self.tally.rounds == 1 {
            self.tally.first_round = self.begun.elapsed().as_secs_f64();
        }
        Ok(())
    }

    /// Whose patience is at its end, or who has stayed for long enough.
    fn look_at_the_clock(&mut self) -> io::Result<()> {
        let now = Instant::now();
        let all_go = self.order.gives_up && self.time_is_up();
        // Those who stay were put behind those whose patience lasts longer, and are found when it ends, or here.
        let mut later = VecDeque::new();
        let look_at_all = all_go || matches!(self.order.conduct, Conduct::Stay(_));
        while let Some((deadline, place, number)) = self.deadlines.pop_front() {
            let slot = &self.clients[place as usize];
            let Some(client) = slot.client.as_ref().filter(|_| slot.number == number) else { continue };
            let stays = matches!(self.order.conduct, Conduct::Stay(_));
            if deadline > now && !all_go {
                later.push_back((deadline, place, number));
                if look_at_all { continue } else { break }
            }
            match client.state {
                // That of its patience, from before the answer.
                Stand::Answered if stays || all_go => self.leave(place)?,
                Stand::Answered => {}
                Stand::Connecting => {
                    self.failed(&io::Error::from(ErrorKind::TimedOut));
                    self.close(place, Leave::Resetting)?;
                }
                Stand::Asked => {
                    let quits = matches!(self.order.conduct, Conduct::Quit(_)) || all_go;
                    *(if quits { &mut self.tally.gone } else { &mut self.tally.unanswered }) += 1;
                    self.leave(place)?;
                }
            }
        }
        later.append(&mut self.deadlines);
        self.deadlines = later;
        Ok(())
    }

    fn until_next(&self) -> Duration {
        let next = match self.order.per_second {
            Some(rate) if !self.is_over() => Duration::from_secs_f64((0.5 / rate).min(0.01)),
            _ if self.made < self.order.total && self.inside < self.order.at_once => Duration::from_millis(1),
            _ => Duration::from_millis(10),
        };
        let has_room = self.inside < self.order.at_once && self.waiting < self.order.unanswered_at_once;
        let hurry = self.order.per_second.is_none() && has_room && !self.is_over();
        if hurry { Duration::ZERO } else { next }
    }

    fn refused(&mut self, place: u32) -> io::Result<()> {
        self.tally.refused += 1;
        self.close(place, Leave::Closing)
    }

    fn failed(&mut self, error: &io::Error) {
        self.tally.failed += 1;
        self.tally.error.get_or_insert_with(|| error.to_string());
    }

    fn leave(&mut self, place: u32) -> io::Result<()> {
        let how = match self.order.leave {
            Leave::Either if place % 2 == 0 => Leave::Resetting,
            Leave::Either => Leave::Closing,
            one => one,
        };
        self.close(place, how)
    }

    fn close(&mut self, place: u32, how: Leave) -> io::Result<()> {
        let slot = &mut self.clients[place as usize];
        slot.number = slot.number.wrapping_add(1);
        let client = slot.client.take().expect("who is closed is there");
        if how == Leave::Resetting {
            client.socket.set_linger(Some(Duration::ZERO))?;
        }
        self.inside -= 1;
        self.waiting -= usize::from(client.state != Stand::Answered);
        self.free.push(place);
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
    // One address has ports for one connection each to the server, not for one each to anybody.
    setsockopt(&socket, IpBindAddressNoPort, &true)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(nix::errno::Errno::EINPROGRESS as i32) => Err(error),
        _ => Ok(socket),
    }
}

fn token(place: u32, number: u32) -> Token {
    Token(u64::from(number) << 32 | u64::from(place))
}

#[expect(clippy::cast_possible_truncation, reason = "these are the halves")]
const fn halves(token: u64) -> (u32, u32) {
    (token as u32, (token >> 32) as u32)
}
