//! A thread for each connection, with a limit, on blocking streams. SIGTERM ends the service without a reset.
//!
//! ```text
//! cargo run --release -p servers --bin threads -- --listen 127.0.0.1:8080 --limit 500
//! ```

use std::error::Error;
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use epoll_acceptor::{Connection, Gate};
use servers::{listener, options};
use signal_hook::consts::SIGTERM;
use signal_hook::iterator::Signals;

const HELLO: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhello\n";
/// How long a client may say nothing.
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers requests without a body, one after the other.
fn serve(connection: Connection<TcpStream>) -> io::Result<()> {
    connection.set_read_timeout(Some(PATIENCE))?;
    let mut connection = BufReader::new(connection);
    loop {
        let mut line = String::new();
        // The head ends with an empty line.
        while connection.read_line(&mut line)? > 2 {
            line.clear();
        }
        if line.is_empty() {
            return Ok(());
        }
        connection.get_mut().write_all(HELLO)?;
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    let gate = Gate::new(options.limit);
    let (listener, pending) = listener(&options)?;
    let mut acceptor = options.trigger.on(listener).backlog(4_096).gate(&gate).build_blocking()?;
    let (control, mut signals) = (acceptor.control(), Signals::new([SIGTERM])?);
    println!("listening on {}", acceptor.listener().local_addr()?);
    thread::spawn(move || {
        signals.forever().next();
        control.shutdown_gracefully(pending, options.within);
    });
    for connection in acceptor.incoming() {
        let connection = connection?;
        // Without a thread the connection is closed, and its permit released.
        let _ = thread::Builder::new().spawn(move || serve(connection));
    }
    println!("{}, {:?}", acceptor.counters(), acceptor.shutdown_report());
    drop(acceptor);
    let _ = gate.wait_idle(Some(2 * PATIENCE));
    Ok(())
}
