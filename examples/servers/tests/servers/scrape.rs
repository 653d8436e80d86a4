//! The metrics can be scraped while the server is full, and are correct.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::client::Answer;
use crate::metrics::PROGRAM;
use crate::server::Server;
use crate::{LONG, eventually, tools};

fn scrape(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(LONG)).expect("a bound");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").expect("a request");
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
    let server = Server::start(&PROGRAM, &["--limit", "3"]);
    let address = server.preamble.trim().strip_prefix("metrics on ").expect("the first line");
    let address = address.parse().expect("an address");
    let mut clients = server.connect_many(3);
    clients.iter_mut().for_each(|client| assert_eq!(client.ask(), Answer::Served));
    for _ in 0..2 {
        assert_eq!(server.connect().answer(), Answer::Refused);
    }
    let text = scrape(address);
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
    if let Some((status, body, stderr)) = tools::curl(&[&format!("http://{address}/metrics")]) {
        assert_eq!((&*status, &*stderr), ("200", ""));
        assert!(body.ends_with("# EOF\n"), "{body}");
    }
    drop(clients);
    eventually("the permits are released", || value(&scrape(address), "acceptor_in_service") < 1.5);
    server.end();
}
