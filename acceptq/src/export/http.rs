//! The HTTP endpoint, on the blocking acceptor of epoll-acceptor: a thread for each of a few connections.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use epoll_acceptor::{Gate, LevelTriggered};

use crate::{eprint, print_error};

/// Connections at the same time; further ones wait in the accept queue.
const CONNECTIONS: u32 = 8;
/// The time limit of a request, and of each read and write.
const PATIENCE: Duration = Duration::from_secs(10);
/// The maximum length of a request.
const REQUEST: usize = 8 << 10;

/// The last metrics, and when they were complete.
type Last = Option<(Instant, String)>;

/// Returns the listener of the endpoint.
pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot listen at {address}: {error}")))
}

/// Serves the metrics until the process is killed. One request observes at a time.
pub(super) fn serve(
    listener: TcpListener,
    observe: impl Fn() -> io::Result<String> + Sync,
) -> io::Result<()> {
    eprint(&format!("serving http://{}/metrics\n", listener.local_addr()?));
    let gate = Gate::new(CONNECTIONS);
    let mut acceptor = LevelTriggered::on(listener).gate(&gate).build_blocking()?;
    let last = Mutex::new(None);
    thread::scope(|scope| {
        for connection in acceptor.incoming() {
            let (mut connection, observe, last) = (connection?, &observe, &last);
            let serve = move || {
                // A client that gives up is no fault of the exporter.
                let _ = within_patience(&connection)
                    .and_then(|()| answer(&mut *connection, || fresh(last, observe)));
            };
            // Without a thread the connection is closed.
            if let Err(error) = thread::Builder::new().spawn_scoped(scope, serve) {
                print_error(&format!("cannot start a thread: {error}"));
            }
        }
        Ok(())
    })
}

fn within_patience(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

/// Returns metrics that are younger than the call: of several simultaneous requests, the first one observes.
fn fresh(last: &Mutex<Last>, observe: impl Fn() -> io::Result<String>) -> io::Result<String> {
    let asked = Instant::now();
    let mut last = last.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some((complete, text)) = &*last
        && *complete >= asked
    {
        return Ok(text.clone());
    }
    let text = observe()?;
    *last = Some((Instant::now(), text.clone()));
    Ok(text)
}

/// Reads one request, answers it, and closes.
fn answer(stream: &mut (impl Read + Write), metrics: impl FnOnce() -> io::Result<String>) -> io::Result<()> {
    let (mut request, mut length, began) = ([0; REQUEST], 0, Instant::now());
    let (status, body) = loop {
        let count = stream.read(&mut request[length..])?;
        length += count;
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Request::new(&mut headers);
        match parsed.parse(&request[..length]) {
            Ok(httparse::Status::Complete(_)) => break respond(&parsed, metrics),
            Ok(httparse::Status::Partial) if count > 0 && began.elapsed() < PATIENCE => {}
            Ok(httparse::Status::Partial) if length == 0 => return Ok(()),
            _ => break ("400 Bad Request", "400\n".into()),
        }
    };
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    stream.write_all(answer.as_bytes())
}

fn respond(
    request: &httparse::Request<'_, '_>,
    metrics: impl FnOnce() -> io::Result<String>,
) -> (&'static str, String) {
    let path = request.path.unwrap_or_default().split('?').next();
    match (request.method, path) {
        (Some("GET"), Some("/metrics")) => match metrics() {
            Ok(text) => ("200 OK", text),
            Err(error) => {
                print_error(&error.to_string());
                ("500 Internal Server Error", format!("{error}\n"))
            }
        },
        (Some("GET"), Some("/")) => ("200 OK", "acceptq export: see /metrics\n".into()),
        (Some("GET"), _) => ("404 Not Found", "404: see /metrics\n".into()),
        _ => ("405 Method Not Allowed", "405: only GET\n".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request, and the answer to it.
    struct Exchange(io::Cursor<Vec<u8>>, Vec<u8>);

    impl Read for Exchange {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            // A request may arrive in small pieces.
            let end = buffer.len().min(7);
            self.0.read(&mut buffer[..end])
        }
    }

    impl Write for Exchange {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn answer_to(request: &str, metrics: io::Result<String>) -> String {
        let mut exchange = Exchange(io::Cursor::new(request.as_bytes().to_vec()), Vec::new());
        answer(&mut exchange, || metrics).expect("memory");
        String::from_utf8(exchange.1).expect("text")
    }

    #[test]
    fn requests_are_answered_by_path_and_method() {
        let cases = [
            ("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK\r\n"),
            ("GET /metrics?a=b HTTP/1.0\r\n\r\n", "HTTP/1.1 200 OK\r\n"),
            ("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\n"),
            ("GET /other HTTP/1.1\r\n\r\n", "HTTP/1.1 404 "),
            ("POST /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 405 "),
            ("\u{1}\r\n\r\n", "HTTP/1.1 400 "),
            ("GET /metrics HTTP/1.1\r\n", "HTTP/1.1 400 "),
            ("", ""),
        ];
        for (request, start) in cases {
            let answer = answer_to(request, Ok("a 1\n".into()));
            assert!(answer.starts_with(start), "{request:?}: {answer}");
            assert_eq!(
                answer.ends_with("\r\n\r\na 1\n"),
                request.starts_with("GET /metrics") && start.contains("200")
            );
        }
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(REQUEST));
        assert!(answer_to(&long, Ok(String::new())).starts_with("HTTP/1.1 400 "));
        let failed = answer_to(cases[0].0, Err(io::Error::other("no")));
        assert!(failed.starts_with("HTTP/1.1 500 "), "{failed}");
    }
}
