//! An echo server with one epoll per worker, and one connection limit for all workers.
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
use std::os::unix::net::UnixListener;
use std::process::ExitCode;
use std::thread::{self, JoinHandle};

use epoll_acceptor::socket::Listener;
use epoll_acceptor::{Acceptor, Control, Counters, Epoll};

use crate::address::{Address, listen_tcp, listen_unix};
use crate::options::{HELP, Options};
use crate::signals::{EndServerOnDrop, Signals};
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

/// Serves until a signal arrives, and then prints the counters.
fn serve<L>(listener: &L, bound: &Address, options: &Options, signals: &Signals) -> Result<(), Box<dyn Error>>
where
    L: Listener + Share + Send + 'static,
    L::Stream: Read + Write + Send,
{
    let workers =
        (0..options.workers).map(|_| Worker::start(listener, options)).collect::<Result<Vec<_>, _>>()?;
    print(&format!("listening on {bound}"))?;
    while !signals.wait(options.stats)? {
        for (number, worker) in workers.iter().enumerate() {
            print(&format!("worker {number}: {}", worker.control.counters()))?;
        }
    }
    for worker in &workers {
        worker.control.stop();
    }
    for (number, worker) in workers.into_iter().enumerate() {
        print(&format!("worker {number}: {}", worker.join()?))?;
    }
    Ok(())
}

/// A serving thread, and the control of its acceptor.
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
        let acceptor = match &options.gate {
            Some(gate) => builder.gate(gate).register(&epoll, LISTENER)?,
            None => builder.register(&epoll, LISTENER)?,
        };
        let control = acceptor.control();
        let thread = thread::Builder::new().spawn(move || {
            let _guard = EndServerOnDrop;
            worker::run(epoll, acceptor)
        })?;
        Ok(Self { thread, control })
    }

    fn join(self) -> Result<Counters, Box<dyn Error>> {
        Ok(self.thread.join().map_err(|_| "a worker panicked")??)
    }
}

/// Prints a line and flushes it.
fn print(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// A listener of which every worker gets a duplicate.
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
