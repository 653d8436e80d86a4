//! The metrics example: the metrics can be scraped while the server is full, and are correct.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use crate::binaries::example;
use crate::{BOUND, eventually};

/// Killed with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(BOUND)).expect("a bound");
    stream
}

fn scrape(address: SocketAddr) -> String {
    let mut stream = connect(address);
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: test\r\n\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    answer
}

/// Returns the value of a metric.
fn value(text: &str, metric: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {metric} in {text}")).parse().expect("a number")
}

#[test]
fn full_server_exports_its_metrics() {
    let mut command = Command::new(example("metrics"));
    let mut child = command.args(["--limit", "3"]).stdout(Stdio::piped()).spawn().expect("the example runs");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let _server = Server(child);
    let mut address = |prefix: &str| -> SocketAddr {
        let line = lines.next().expect("a line").expect("text");
        line.strip_prefix(prefix).expect("its first lines").parse().expect("an address")
    };
    let (public, metrics) = (address("listening on "), address("metrics on "));
    let mut clients: Vec<_> = (0..3).map(|_| connect(public)).collect();
    let mut hello = [0; 6];
    for client in &mut clients {
        client.read_exact(&mut hello).expect("a greeting");
        assert_eq!(&hello, b"hello\n");
    }
    for _ in 0..2 {
        let mut message = String::new();
        connect(public).read_to_string(&mut message).expect("a refusal");
        assert_eq!(message, "busy\n");
    }
    let text = scrape(metrics);
    assert!((value(&text, "acceptor_refused_total{cause=\"full\"}") - 2.0).abs() < 0.5);
    assert!((value(&text, "acceptor_delivered_total") - 3.0).abs() < 0.5);
    assert!((value(&text, "acceptor_per_pass_sum") - 5.0).abs() < 0.5);
    // Three clients and the scraper.
    assert!((value(&text, "acceptor_in_service") - 4.0).abs() < 0.5);
    let inf = value(&text, "acceptor_per_pass_bucket{le=\"+Inf\"}");
    assert!((inf - value(&text, "acceptor_per_pass_count")).abs() < 0.5);
    assert!(value(&text, "acceptor_exhausted_total{resource=\"process_descriptors\"}") < 0.5);
    assert!(value(&text, "acceptor_state_seconds_total{state=\"listening\"}") > 0.0);
    // The refused ones are not measured: a full gate refuses before the filters are asked.
    assert!((value(&text, "acceptor_queue_seconds_count") - 3.0).abs() < 0.5);
    drop(clients);
    eventually("the permits are released", || value(&scrape(metrics), "acceptor_in_service") < 1.5);
}
