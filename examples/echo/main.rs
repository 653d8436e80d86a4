//! An echo server on one epoll per worker, with a connection limit over all of them.
//!
//! ```text
//! cargo run --release --example echo -- --listen 127.0.0.1:8080 --limit 100 --workers 2
//! ```

mod address;
mod connection;
mod options;
mod signals;
mod slab;
mod worker;

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::process::ExitCode;
use std::thread::{self, JoinHandle};

use epoll_acceptor::{Acceptor, Control, Counters, Epoll, Listener};

use crate::address::{Address, listen_tcp, listen_unix};
use crate::options::{HELP, Options};
use crate::signals::{EndsTheServer, Signals};
use crate::worker::LISTENER;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let Some(options) = Options::from_command_line()? else {
        io::stdout().write_all(HELP.as_bytes())?;
        return Ok(());
    };
    let signals = Signals::block()?;
    match options.listen.clone() {
        Address::Tcp(address) => {
            let listener = listen_tcp(address)?;
            let bound = Address::Tcp(listener.local_addr()?);
            serve(&listener, &bound, &options, &signals)
        }
        Address::Unix(path) => {
            let (listener, _file) = listen_unix(path)?;
            serve(&listener, &options.listen, &options, &signals)
        }
    }
}

/// Serves until a signal comes, and then says what was done.
fn serve<L>(listener: &L, bound: &Address, options: &Options, signals: &Signals) -> Result<(), Box<dyn Error>>
where
    L: Listener + Share + Send + 'static,
    L::Stream: Read + Write + Send,
{
    let workers =
        (0..options.workers).map(|_| Worker::start(listener, options)).collect::<Result<Vec<_>, _>>()?;
    say(&format!("listening on {bound}"))?;
    while !signals.wait(options.stats)? {
        for (number, worker) in workers.iter().enumerate() {
            say(&format!("worker {number}: {}", worker.control.counters()))?;
        }
    }
    for worker in &workers {
        worker.control.stop();
    }
    for (number, worker) in workers.into_iter().enumerate() {
        say(&format!("worker {number}: {}", worker.join()?))?;
    }
    Ok(())
}

/// A thread that serves, and the handle of its acceptor.
struct Worker {
    thread: JoinHandle<io::Result<Counters>>,
    control: Control,
}

impl Worker {
    fn start<L>(listener: &L, options: &Options) -> io::Result<Self>
    where
        L: Listener + Share + Send + 'static,
        L::Stream: Read + Write + Send,
    {
        let epoll = Epoll::new()?;
        let builder = options.trigger.on(listener.share()?).budget(options.budget);
        match &options.gate {
            Some(gate) => {
                let acceptor = builder.gate(gate).register(&epoll, LISTENER)?;
                Self::spawn(epoll, acceptor)
            }
            None => {
                let acceptor = builder.register(&epoll, LISTENER)?;
                Self::spawn(epoll, acceptor)
            }
        }
    }

    fn spawn<A>(epoll: Epoll, acceptor: A) -> io::Result<Self>
    where
        A: Acceptor + Send + 'static,
        A::Stream: Read + Write + AsFd + Send,
    {
        let control = acceptor.control();
        let thread = thread::Builder::new().spawn(move || {
            let _ends = EndsTheServer;
            worker::run(epoll, acceptor)
        })?;
        Ok(Self { thread, control })
    }

    fn join(self) -> Result<Counters, Box<dyn Error>> {
        Ok(self.thread.join().map_err(|_| "a worker panicked")??)
    }
}

/// Prints a line at once, whoever reads it.
fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// The same listening socket for another worker.
trait Share: Sized {
    fn share(&self) -> io::Result<Self>;
}

impl Share for TcpListener {
    fn share(&self) -> io::Result<Self> {
        self.try_clone()
    }
}

impl Share for UnixListener {
    fn share(&self) -> io::Result<Self> {
        self.try_clone()
    }
}
