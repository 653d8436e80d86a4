//! A client of the ordeal: connects, is silent for a while, speaks, and notes what it hears.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsRawFd;
use std::os::linux::fs::MetadataExt;
use std::time::{Duration, Instant};

use serde::Serialize;
use socket2::{Domain, SockAddr, Socket, Type};

/// Who speaks first and is closed within this time was sent away with a last word.
const LAST_WORD: Duration = Duration::from_millis(50);

/// What a server does to a client that it does not want, or lets it come to.
const REFUSALS: [i32; 5] =
    [libc::ECONNREFUSED, libc::ECONNRESET, libc::ECONNABORTED, libc::EPIPE, libc::ETIMEDOUT];

/// Where the server is, for a client.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    pub(crate) address: SockAddr,
    pub(crate) kind: Type,
}

/// What a client says, and after how much silence.
#[derive(Clone, Debug)]
pub(crate) struct Speech {
    pub(crate) text: Vec<u8>,
    pub(crate) quiet: Duration,
}

/// How the server treats a client when it has room for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Manner {
    /// Speaks first.
    Greets,
    /// Speaks first, and closes.
    GreetsAndCloses,
    /// Answers what was sent.
    Answers,
    /// Closes when it was sent something it does not understand.
    ClosesWhenAsked,
    /// Takes the connection and says nothing.
    Silent,
}

/// What became of a client so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Not connected, or connected and not heard of.
    Waits,
    Answered,
    Refused,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Client {
    socket: Socket,
    door: Door,
    connected: Option<Instant>,
    heard: Option<Instant>,
    spoke: bool,
    /// Heard something before it had spoken.
    unasked: bool,
    ended: bool,
    /// Since when the server has it, as the kernel tells.
    taken: Option<Instant>,
}

impl Client {
    /// Begins to connect; [`step`](Self::step) goes on with it.
    pub(crate) fn call(door: &Door) -> io::Result<Self> {
        let mut client = Self::prepare(door)?;
        client.connect()?;
        Ok(client)
    }

    /// Ready to connect, so that many can do so in a short time.
    pub(crate) fn prepare(door: &Door) -> io::Result<Self> {
        let socket = Socket::new(Domain::from(i32::from(door.address.family())), door.kind, None)?;
        socket.set_nonblocking(true)?;
        let door = door.clone();
        Ok(Self {
            socket,
            door,
            connected: None,
            heard: None,
            spoke: false,
            unasked: false,
            ended: false,
            taken: None,
        })
    }

    /// A full queue is no end: TCP sends its SYN again, a Unix client has to ask again.
    pub(crate) fn connect(&mut self) -> io::Result<()> {
        match self.socket.connect(&self.door.address) {
            Ok(()) => self.connected = Some(Instant::now()),
            Err(error) => match error.raw_os_error() {
                Some(libc::EISCONN) => self.connected = Some(Instant::now()),
                Some(libc::EINPROGRESS | libc::EALREADY | libc::EAGAIN | libc::EINTR) => {}
                Some(errno) if REFUSALS.contains(&errno) => self.ended = true,
                // The server has nothing to do with it.
                _ => return Err(unable(&error)),
            },
        }
        Ok(())
    }

    /// Hears what has come, and speaks if it is time to.
    pub(crate) fn step(&mut self, speech: Option<&Speech>) -> io::Result<()> {
        if self.connected.is_none() && !self.ended {
            self.connect()?;
        }
        let Some(connected) = self.connected else { return Ok(()) };
        self.hear();
        let Some(speech) = speech else { return Ok(()) };
        let is_silent = self.heard.is_none() && !self.ended && !self.spoke;
        if is_silent && connected.elapsed() >= speech.quiet {
            self.spoke = true;
            // Whoever has closed meanwhile is found out by reading.
            let _ = (&self.socket).write(&speech.text);
        }
        Ok(())
    }

    fn hear(&mut self) {
        let mut buffer = [0; 4096];
        while !self.ended {
            match (&self.socket).read(&mut buffer) {
                Ok(0) => self.ended = true,
                Ok(_) => {
                    self.unasked |= self.heard.is_none() && !self.spoke;
                    self.heard.get_or_insert_with(Instant::now);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.ended = true,
            }
        }
    }

    pub(crate) fn fate(&self, manner: Manner) -> Fate {
        let heard = self.heard.is_some();
        match (self.ended, self.spoke && !self.unasked) {
            // It was sent away before it had said anything.
            (true, false) if heard && manner == Manner::GreetsAndCloses => Fate::Answered,
            (true, false) => Fate::Refused,
            (true, true) if heard || manner == Manner::ClosesWhenAsked => Fate::Answered,
            (true, true) => Fate::Refused,
            (false, true) if heard => Fate::Answered,
            // A last word may still be followed by the end.
            (false, false) if self.heard.is_some_and(|heard| heard.elapsed() > LAST_WORD) => Fate::Answered,
            // One who has been taken may still be closed: that is a refusal, too.
            (false, _) if manner == Manner::Silent && self.has_been_taken_for(LAST_WORD) => Fate::Answered,
            (false, _) => Fate::Waits,
        }
    }

    /// How the server has treated this one; `None` as long as nothing has come.
    pub(crate) fn manner(&self) -> Option<Manner> {
        match (self.heard, self.ended, self.unasked) {
            (Some(_), true, true) => Some(Manner::GreetsAndCloses),
            (Some(heard), false, true) if heard.elapsed() > LAST_WORD => Some(Manner::Greets),
            (Some(_), _, false) => Some(Manner::Answers),
            (None, true, _) if self.spoke => Some(Manner::ClosesWhenAsked),
            _ => None,
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connected.is_some()
    }

    /// Notes whether the server has it now.
    pub(crate) fn note(&mut self, is_taken: bool) {
        if is_taken {
            self.taken.get_or_insert_with(Instant::now);
        } else {
            self.taken = None;
        }
    }

    pub(crate) fn has_been_taken_for(&self, time: Duration) -> bool {
        self.taken.is_some_and(|taken| taken.elapsed() >= time)
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// How the kernel's lists name this client: TCP by its address, Unix by its inode.
    pub(crate) fn name(&self) -> Option<Name> {
        self.connected?;
        match self.socket.local_addr().ok()?.as_socket() {
            Some(address) => Some(Name::Inet(canonical(address))),
            None => {
                let link = std::fs::metadata(format!("/proc/self/fd/{}", self.socket.as_raw_fd())).ok()?;
                Some(Name::Inode(u32::try_from(link.st_ino() & 0xffff_ffff).ok()?))
            }
        }
    }

    /// Speaks out of turn, and waits for a new answer.
    pub(crate) fn say(&mut self, text: &[u8]) -> io::Result<()> {
        (self.heard, self.spoke) = (None, true);
        (&self.socket).write_all(text)
    }

    /// Says that it will send no more; the server's own close is what frees its place.
    pub(crate) fn say_goodbye(&self) {
        // Who was closed already has nothing to say.
        let _ = self.socket.shutdown(Shutdown::Write);
    }
}

/// A client that could not even try.
fn unable(error: &io::Error) -> io::Error {
    let remedy = match error.raw_os_error() {
        Some(libc::EADDRNOTAVAIL) => {
            "; no local port is free: hold fewer, or widen net.ipv4.ip_local_port_range"
        }
        Some(libc::EACCES | libc::EPERM) => "; run this as a user who may connect, or as root",
        _ => "",
    };
    io::Error::new(error.kind(), format!("connect: {error}{remedy}"))
}

/// A client in the kernel's lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Name {
    Inet(SocketAddr),
    Inode(u32),
}

/// An IPv4 client of an IPv6 listener has an IPv6 name there.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_server_does_is_a_refusal() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = free.local_addr().expect("it is bound");
        drop(free);
        let door = Door { address: address.into(), kind: Type::STREAM };
        let mut client = Client::call(&door).expect("a refusal is no error");
        while !client.has_ended() {
            client.step(None).expect("nor later");
        }
        let nowhere = SockAddr::unix("/nowhere/at/all.sock").expect("a short path");
        let error = Client::call(&Door { address: nowhere, kind: Type::STREAM }).expect_err("no such file");
        assert!(error.to_string().starts_with("connect: "), "{error}");
    }

    #[test]
    fn what_stands_in_a_client_s_way_has_its_remedy() {
        for (errno, remedy) in [(libc::EADDRNOTAVAIL, "hold fewer"), (libc::EACCES, "user who may")] {
            let error = unable(&io::Error::from_raw_os_error(errno));
            assert!(error.to_string().contains(remedy), "{error}");
        }
    }
}
