//! An echo server on polling: the acceptor is registered on the poller's own epoll, under a key of its own.
//!
//! ```text
//! cargo run --release --example hosted_polling -- --listen 127.0.0.1:8080 --limit 100
//! ```
//!
//! A `Poller` is `AsFd`, so the acceptor needs no epoll of its own. By default the poller disarms its own sources after
//! each event; it does not touch the acceptor's registrations. The poller registers the connections, level-triggered.

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

use epoll_acceptor::socket::Listener;
use epoll_acceptor::{Acceptor, Connection, EpollAcceptor, Token};
use polling::{Event, Events, PollMode, Poller};

use crate::address::{Address, listen_tcp, listen_unix};
use crate::connection::{CHUNK, Echo, Progress, WaitsFor};
use crate::options::{HELP, Options};
use crate::slab::Slab;

/// The slab, whose keys are the connections' keys, never reaches these two. `usize::MAX` is reserved by the poller.
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

/// Serves until a signal arrives, and then prints the counters.
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

#[allow(unsafe_code, reason = "polling requires that the descriptor outlives its registration")]
fn watch(poller: &Poller, fd: &impl AsFd, key: usize) -> io::Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: a connection is deleted before it is closed (`Server::serve`), and the signal descriptor lives as long as
    // the poller.
    unsafe { poller.add_with_mode(fd, Event::readable(key), PollMode::Level) }
}

struct Server<L: Listener> {
    poller: Poller,
    acceptor: EpollAcceptor<L>,
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
                    LISTENER => self.accept()?,
                    key => self.serve(key as u64),
                }
            }
        }
    }

    /// Begins one pass for one event. The next wait reports what the pass leaves in the queue.
    fn accept(&mut self) -> io::Result<()> {
        for connection in self.acceptor.ready() {
            let key = self.slab.insert(Echo::new(connection?));
            let echo = self.slab.get_mut(key).expect("just inserted");
            if let Err(error) = watch(&self.poller, &echo.connection, usize::try_from(key).expect("64 bits"))
            {
                // Out of memory or of `max_user_watches`: only this connection is lost.
                eprintln!("hosted_polling: closed a connection that could not be registered: {error}");
                self.slab.remove(key);
            }
        }
        Ok(())
    }

    fn serve(&mut self, key: u64) {
        // `None`: the connection was closed earlier in the same batch of events.
        let Some(echo) = self.slab.get_mut(key) else { return };
        let number = usize::try_from(key).expect("64 bits");
        let alive = match echo.proceed(&mut self.buffer) {
            Progress::Same => true,
            Progress::Changed(waits_for) => {
                let event = match waits_for {
                    WaitsFor::Readable => Event::readable(number),
                    WaitsFor::Writable => Event::writable(number),
                };
                self.poller.modify_with_mode(echo.connection.as_fd(), event, PollMode::Level).is_ok()
            }
            Progress::Closed => false,
        };
        if !alive {
            // Cannot fail: it is registered.
            let _ = self.poller.delete(echo.connection.as_fd());
            // Closes the stream, then releases the permit.
            self.slab.remove(key);
        }
    }
}
