//! `acceptq export`: the metrics, scraped by Prometheus, and the files in acceptq/export.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::server::{Server, folder};
use crate::tool::{LONG, acceptq, each, queued, skip, stdout, wait_until};

const ALERTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/export/alerts.yml");
const DASHBOARD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/export/dashboard.json");

/// The source, which names each metric.
const METRICS: &str = include_str!("../../src/export/metrics.rs");

/// A process that is killed at the end.
pub(crate) struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the exporter on any port. Returns it and its address.
pub(crate) fn exporter(arguments: &[&str]) -> (Process, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_acceptq"));
    command.arg("export").args(arguments).args(["--listen", "127.0.0.1:0", "--for", "0.3"]);
    command.stderr(Stdio::piped());
    let mut child = Process(command.spawn().expect("the tool runs"));
    let mut line = String::new();
    let stderr = child.0.stderr.take().expect("a pipe");
    BufReader::new(stderr).read_line(&mut line).expect("its address");
    let address = line.trim().strip_prefix("serving http://").and_then(|rest| rest.strip_suffix("/metrics"));
    let address = address.unwrap_or_else(|| panic!("no address in {line:?}")).to_string();
    (child, address)
}

/// Returns the head and the body of an answer.
pub(crate) fn get(address: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(LONG)).expect("a time");
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.into(), body.into())
}

/// Returns the value of a series.
fn value(metrics: &str, series: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// Runs promtool with this input. Returns `None` if it is not installed.
fn promtool(arguments: &[&str], input: &str) -> Option<()> {
    let mut command = Command::new("promtool");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        skip!("promtool is not installed (Debian: prometheus)");
        return None;
    };
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {output:?}");
    Some(())
}

#[test]
fn metrics_describe_the_queue() {
    let Some(server) = Server::start("edge", "127.0.0.1", 1) else { return };
    let _held = server.hold_one();
    let mut clients = server.connect_while_stopped(5);
    wait_until("one is refused", || queued(&server.target()) == 4);
    drop(clients.pop());
    let target = server.target();
    let labels = format!("{{kind=\"tcp\",address=\"127.0.0.1:{target}\"");
    let metrics = stdout(&acceptq(&["export", &target, "--for", "0.3"]));
    let of = |name: &str| value(&metrics, &format!("acceptq_{name}{labels}}}"));
    assert_eq!((of("queue_length"), of("queue_capacity")), (Some(4.0), Some(65.0)), "{metrics}");
    assert_eq!(of("queue_dead_connections"), Some(1.0), "{metrics}");
    assert_eq!((of("drops_total"), of("accepts_per_second")), (Some(0.0), Some(0.0)), "{metrics}");
    assert!(of("queue_oldest_wait_seconds") > Some(0.0), "{metrics}");
    assert_eq!(value(&metrics, &format!("acceptq_listeners{{target=\"{target}\"}}")), Some(1.0), "{metrics}");
    let verdict = |name: &str| value(&metrics, &format!("acceptq_verdict{labels},verdict=\"{name}\"}}"));
    assert_eq!((verdict("stranded"), verdict("healthy")), (Some(1.0), Some(0.0)), "{metrics}");
    let _ = promtool(&["check", "metrics"], &metrics);
}

#[test]
fn target_without_listener_has_none() {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|one| one.local_addr()).expect("a port").port();
    let output = acceptq(&["export", &port.to_string(), "--for", "0.1"]);
    assert!(output.status.success(), "{output:?}");
    let metrics = stdout(&output);
    assert_eq!(value(&metrics, &format!("acceptq_listeners{{target=\"{port}\"}}")), Some(0.0), "{metrics}");
    assert!(!metrics.contains("acceptq_verdict"), "{metrics}");
}

#[test]
fn textfile_is_replaced() {
    let folder = folder().join("textfile");
    fs::create_dir(&folder).expect("our own directory");
    let path = folder.join("acceptq.prom");
    fs::write(&path, "old").expect("our own directory");
    // A reader keeps the old file.
    let mut old = fs::File::open(&path).expect("just written");
    let path = path.to_str().expect("a plain path");
    assert!(acceptq(&["export", "--textfile", path, "--for", "0.1"]).status.success());
    let mut text = String::new();
    old.read_to_string(&mut text).expect("a file");
    assert_eq!(text, "old");
    let new = fs::read_to_string(path).expect("written");
    assert!(new.contains("\nacceptq_hidden_processes "), "{new}");
    assert_eq!(fs::read_dir(&folder).expect("our own directory").count(), 1, "nothing else is left");
    let missing = acceptq(&["export", "--textfile", "/nowhere/acceptq.prom", "--for", "0.1"]);
    assert_eq!(missing.status.code(), Some(1), "{missing:?}");
}

#[test]
fn endpoint_serves_many_scrapes() {
    let (listener, port) = crate::watch::listener();
    let (_exporter, address) = exporter(&[&port]);
    // They do not delay the others.
    let silent: Vec<_> = (0..3).map(|_| TcpStream::connect(&*address).expect("it listens")).collect();
    silent[0].shutdown(Shutdown::Both).expect("connected");
    each(0..12, |_| {
        let (head, body) = get(&address, "/metrics");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("version=0.0.4"), "{head}");
        assert!(body.contains("acceptq_queue_length{"), "{body}");
    });
    assert!(get(&address, "/other").0.starts_with("HTTP/1.1 404 "));
    drop(listener);
}

#[test]
fn address_in_use_is_an_error() {
    let (_listener, port) = crate::watch::listener();
    let output = acceptq(&["export", "--listen", &format!("127.0.0.1:{port}")]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot listen at 127.0.0.1:"), "{output:?}");
}

#[test]
fn dashboard_and_rules_use_exported_metrics() {
    let expressions = dashboard_expressions();
    let rules = fs::read_to_string(ALERTS).expect("a file");
    let rules = rules.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).map(String::from);
    for expression in expressions.into_iter().chain(rules) {
        let names = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let names: Vec<_> = names.filter(|name| name.starts_with("acceptq_")).collect();
        assert!(!names.is_empty(), "{expression}");
        let is_known =
            |name: &&str| METRICS.contains(&format!("\"{}\"", name.trim_start_matches("acceptq_")));
        assert!(names.iter().all(is_known), "{names:?}");
    }
}

fn dashboard_expressions() -> Vec<String> {
    let text = fs::read_to_string(DASHBOARD).expect("a file");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().expect("targets"));
    targets.map(|target| target["expr"].as_str().expect("an expression").to_string()).collect()
}

#[test]
fn alert_rules_are_valid() {
    let _ = promtool(&["check", "rules", ALERTS], "");
}

/// Asks Prometheus. Returns `data`, or null while it does not answer.
fn query(address: &str, path: &str) -> Value {
    if TcpStream::connect(address).is_err() {
        return Value::Null;
    }
    let (head, body) = get(address, path);
    let answer: Value = serde_json::from_str(&body).unwrap_or_default();
    assert!(!head.starts_with("HTTP/1.1 400"), "{path}: {answer}");
    answer["data"].clone()
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

#[test]
fn prometheus_scrapes_and_alerts() {
    let Some(server) = Server::start("edge", "127.0.0.1", 1) else { return };
    let _held = server.hold_one();
    let _clients = server.connect_while_stopped(5);
    let (_exporter, exporter) = exporter(&[&server.target()]);
    let folder = folder().join("prometheus");
    fs::create_dir(&folder).expect("our own directory");
    let config = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{ALERTS}]\n\
         scrape_configs: [{{job_name: acceptq, static_configs: [{{targets: ['{exporter}']}}]}}]\n"
    );
    let file = folder.join("prometheus.yml");
    fs::write(&file, config).expect("our own directory");
    let address = {
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        free.local_addr().expect("bound").to_string()
    };
    let mut command = Command::new("prometheus");
    command.arg(format!("--config.file={}", file.display()));
    command.arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
    command.arg(format!("--web.listen-address={address}")).stderr(Stdio::null());
    let Ok(prometheus) = command.spawn() else {
        skip!("prometheus is not installed");
        return;
    };
    let _prometheus = Process(prometheus);
    let mut alert = Value::Null;
    wait_until("the fault is pending as an alert", || {
        std::thread::sleep(Duration::from_millis(200));
        let alerts = query(&address, "/api/v1/alerts")["alerts"].as_array().cloned();
        let fault = |alert: &Value| alert["labels"]["alertname"] == "ListenerFault";
        alert = alerts.unwrap_or_default().into_iter().find(fault).unwrap_or_default();
        !alert.is_null()
    });
    assert_eq!(alert["labels"]["verdict"], "stranded", "{alert:#}");
    assert_eq!(alert["labels"]["address"], format!("127.0.0.1:{}", server.target()), "{alert:#}");
    for expression in dashboard_expressions() {
        let expression = expression.replace("$instance", ".*").replace("$address", ".*");
        let expression = expression.replace("$__rate_interval", "1m");
        let data = query(&address, &format!("/api/v1/query?query={}", encoded(&expression)));
        assert_eq!(data["resultType"], "vector", "{expression}: {data:#}");
    }
}
