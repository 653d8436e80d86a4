//! An echo server on polling: the acceptor is registered on the poller's own epoll, under a key of its own.
//!
//! ```text
//! cargo run --release --example hosted_polling -- --listen 127.0.0.1:8080 --limit 100
//! ```
//!
//! A `Poller` can be had as a descriptor, so the acceptor needs no epoll of its own. The poller disarms its
//! own sources after each event unless told otherwise; it does not know of the acceptor's, and leaves them
//! alone. The connections are the poller's, level-triggered.

#[path = "../echo/address.rs"]
mod address;
#[path = "../echo/connection.rs"]
mod connection;
#[path = "../common/options.rs"]
mod options;
#[path = "../common/signals.rs"]
mod signals;
#[path = "../echo/slab.rs"]
mod slab;

use std::error::Error;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};

use epoll_acceptor::{Acceptor, Connection, EpollAcceptor, Gate, Listener, Token, Trigger};
use polling::{Event, Events, PollMode, Poller};

use crate::address::{Address, listen_tcp, listen_unix};
use crate::connection::{CHUNK, Echo, Turn, WaitsFor};
use crate::options::{HELP, Options};
use crate::slab::Slab;

/// The connections have theirs from the slab, which never gets so far. The last of all numbers is the
/// poller's own.
const LISTENER: usize = usize::MAX - 1;
const SIGNALS: usize = usize::MAX - 2;

fn main() -> Result<(), Box<dyn Error>> {
    let Some(options) = Options::from_command_line()? else {
        print!("Usage: hosted_polling --listen ADDR [OPTIONS]\n\n{HELP}");
        return Ok(());
    };
    match options.listen.clone() {
        Address::Tcp(address) => {
            let listener = listen_tcp(address)?;
            let bound = Address::Tcp(listener.local_addr()?);
            serve(listener, &bound, &options)
        }
        Address::Unix(path) => {
            let (listener, _file) = listen_unix(path)?;
            serve(listener, &options.listen, &options)
        }
    }
}

/// Serves until a signal comes, and then says what was done.
fn serve<L>(listener: L, bound: &Address, options: &Options) -> Result<(), Box<dyn Error>>
where
    L: Listener,
    L::Stream: Read + Write,
{
    let signals = signals::block()?;
    let poller = Poller::new()?;
    watch(&poller, &signals, SIGNALS)?;
    let builder = options.trigger.on(listener).budget(options.budget).gate(&options.gate);
    let acceptor = builder.register(&poller, Token(LISTENER as u64)).map_err(io::Error::from)?;
    let control = acceptor.control();
    println!("listening on {bound}");
    let mut server = Server { poller, acceptor, slab: Slab::new(), buffer: [0; CHUNK] };
    server.run()?;
    println!("hosted_polling: {}", control.counters());
    Ok(())
}

#[allow(unsafe_code, reason = "the library asks for a promise about the descriptor's life")]
fn watch(poller: &Poller, fd: &impl AsFd, key: usize) -> io::Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: a connection is deleted before it is closed (`Server::serve`), and the signals live as long as
    // the poller.
    unsafe { poller.add_with_mode(fd, Event::readable(key), PollMode::Level) }
}

struct Server<L: Listener> {
    poller: Poller,
    acceptor: EpollAcceptor<L, Trigger, Gate>,
    slab: Slab<Echo<Connection<L::Stream>>>,
    buffer: [u8; CHUNK],
}

impl<L> Server<L>
where
    L: Listener,
    L::Stream: Read + Write,
{
    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::new();
        loop {
            events.clear();
            match self.poller.wait(&mut events, None) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                waited => waited?,
            };
            for event in events.iter() {
                match event.key {
                    SIGNALS => return Ok(()),
                    LISTENER => self.welcome()?,
                    key => self.serve(key as u64),
                }
            }
        }
    }

    /// One pass for one event. Whatever it leaves is reported again.
    fn welcome(&mut self) -> io::Result<()> {
        for connection in self.acceptor.ready() {
            let key = self.slab.insert(Echo::new(connection?));
            let echo = self.slab.get_mut(key).expect("just put there");
            if let Err(error) = watch(&self.poller, &echo.connection, usize::try_from(key).expect("64 bits"))
            {
                // Out of watches or of memory: this client is out of luck, the others are not.
                eprintln!("hosted_polling: a connection could not be watched and was closed: {error}");
                self.slab.remove(key);
            }
        }
        Ok(())
    }

    fn serve(&mut self, key: u64) {
        // An event of a connection that was closed earlier in the same batch finds nobody.
        let Some(echo) = self.slab.get_mut(key) else { return };
        let number = usize::try_from(key).expect("64 bits");
        let alive = match echo.turn(&mut self.buffer) {
            Turn::Same => true,
            Turn::Changed(waits_for) => {
                let event = match waits_for {
                    WaitsFor::Input => Event::readable(number),
                    WaitsFor::Room => Event::writable(number),
                };
                self.poller.modify_with_mode(echo.connection.as_fd(), event, PollMode::Level).is_ok()
            }
            Turn::Over => false,
        };
        if !alive {
            // Cannot fail for what is registered.
            let _ = self.poller.delete(echo.connection.as_fd());
            // Closes it, and then gives its place back.
            self.slab.remove(key);
        }
    }
}
