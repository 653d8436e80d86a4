//! Clients that their users run: curl, wrk, h2load and openssl.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use crate::client::Answer;
use crate::server::Server;
use crate::{AtLimit, Program, Protocol, eventually};

/// Runs a program; `None` if this machine does not have it.
pub(crate) fn run(program: &str, arguments: &[&str], input: &[u8]) -> Option<Output> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        eprintln!("SKIPPED: no {program}");
        return None;
    };
    let _ = child.stdin.take().unwrap().write_all(input);
    Some(child.wait_with_output().unwrap())
}

/// Runs curl, and returns the status code, the body, and its errors.
pub(crate) fn curl(arguments: &[&str]) -> Option<(String, String, String)> {
    let common =
        ["--silent", "--show-error", "--insecure", "--max-time", "60", "--write-out", "\n%{http_code}"];
    let output = run("curl", &[&common, arguments].concat(), b"")?;
    let text = |bytes| String::from_utf8(bytes).expect("text");
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    let (body, status) = stdout.rsplit_once('\n').expect("the status is last");
    Some((status.to_owned(), body.to_owned(), stderr))
}

pub(crate) fn see_no_failure(program: &Program) {
    let server = Server::start(program, &[]);
    let address = server.address.to_string();
    match program.protocol {
        Protocol::Http => {
            curl_reads_hello(&[&format!("http://{address}/")]);
            wrk(&format!("http://{address}/"));
        }
        Protocol::Https => {
            let url = format!("https://{address}/");
            curl_reads_hello(&["--http1.1", &url]);
            curl_reads_hello(&["--http2", &url]);
            h2load(&url);
            openssl(&address);
        }
        // Its tool is tonic itself, as in the other scenes.
        Protocol::Grpc => {}
    }
    server.end();
    if program.at_limit == AtLimit::Refused {
        curl_reads_503(program);
    }
}

fn curl_reads_hello(arguments: &[&str]) {
    let Some((status, body, stderr)) = curl(arguments) else { return };
    // Not every curl has HTTP/2.
    if !stderr.contains("does not support") {
        assert_eq!((&*status, &*body, &*stderr), ("200", "hello\n", ""));
    }
}

fn curl_reads_503(program: &Program) {
    const LIMIT: usize = 4;
    let server = Server::start(program, &["--limit", &LIMIT.to_string()]);
    let url = format!("http://{}/", server.address);
    let mut held = server.connect_many(LIMIT);
    held.iter_mut().for_each(|client| assert_eq!(client.ask(), Answer::Served));
    for _ in 0..25 {
        let Some((status, _, stderr)) = curl(&[&url]) else { return };
        assert_eq!((&*status, &*stderr), ("503", ""));
    }
    drop(held);
    eventually("curl is served", || curl(&[&url]).is_some_and(|(status, ..)| status == "200"));
    assert_eq!(server.end().count("aborted"), 0);
}

fn wrk(url: &str) {
    for header in ["connection: close", "connection: keep-alive"] {
        let arguments = ["--threads", "1", "--connections", "32", "--duration", "1", "--header", header, url];
        let Some(output) = run("wrk", &arguments, b"") else { return };
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("requests in"), "{text}");
        assert!(!text.contains("Socket errors") && !text.contains("Non-2xx"), "{text}");
    }
}

fn h2load(url: &str) {
    for version in ["--h1", "--npn-list=h2"] {
        let arguments = ["--requests", "2000", "--clients", "50", version, url];
        let Some(output) = run("h2load", &arguments, b"") else { return };
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"), "{version}: {text}");
    }
}

fn openssl(address: &str) {
    let arguments = ["s_client", "-connect", address, "-quiet", "-ign_eof"];
    let input = b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    if let Some(output) = run("openssl", &arguments, input) {
        assert!(output.stdout.ends_with(b"hello\n"), "{output:?}");
    }
}
