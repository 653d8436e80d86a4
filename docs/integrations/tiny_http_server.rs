//! A server on tiny_http for the scenes: PORT [LIMIT]. SIGTERM ends it.

use std::net::TcpListener;
use std::sync::Arc;
use std::thread;

use signal_hook::{consts::SIGTERM, iterator::Signals};
use tiny_http::{Response, Server};

const WORKERS: usize = 4;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let port: u16 = arguments.next().unwrap().parse().unwrap();
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    #[cfg(feature = "after")]
    let server = {
        let limit = arguments.next().map_or(u32::MAX, |limit| limit.parse().unwrap());
        Server::with_gate(listener, None, tiny_http::Gate::new(limit)).unwrap()
    };
    #[cfg(not(feature = "after"))]
    let server = Server::from_listener(listener, None).unwrap();
    let server = Arc::new(server);

    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            let server = Arc::clone(&server);
            thread::spawn(move || {
                // The request loop of its example hello-world.
                for request in server.incoming_requests() {
                    // A request that takes a while, so that some are in flight at any time.
                    if request.url() == "/slow" {
                        thread::sleep(std::time::Duration::from_millis(20));
                    }
                    let _ = request.respond(Response::from_string("hello world"));
                }
            })
        })
        .collect();
    Signals::new([SIGTERM]).unwrap().forever().next();
    #[cfg(feature = "after")]
    server.shutdown(std::time::Duration::from_secs(5));
    for _ in 0..WORKERS {
        server.unblock();
    }
    for worker in workers {
        let _ = worker.join();
    }
}
