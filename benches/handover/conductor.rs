//! Starts the first server and the clients, has the server replaced, and collects the results.

use std::error::Error;
use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use epoll_acceptor::handover;
use serde_json::{Value, json};

use crate::Way;
use crate::server::NAMES;

/// The command line.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) connections: u64,
    pub(crate) handovers: u64,
    pub(crate) clients: usize,
    pub(crate) way: Way,
}

/// The result.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    plan: Plan,
    /// As reported by the clients.
    clients: Value,
    /// How many connections each server answered, and how many it left open.
    servers: Vec<(u64, u64)>,
}

/// The bound of every read.
const BOUND: Duration = Duration::from_secs(60);

pub(crate) fn conduct(plan: &Plan) -> Result<Outcome, Box<dyn Error>> {
    let name = format!("epoll-acceptor-handover-{}", std::process::id());
    let control = SocketAddr::from_abstract_name(name)?;
    let service = TcpListener::bind("127.0.0.1:0")?;
    let address = service.local_addr()?.to_string();
    let mut server = start_server(&service, &UnixListener::bind_addr(&control)?)?;
    drop(service);
    let stdout = server.stdout.take().expect("it is piped");

    let step = (plan.connections / (plan.handovers + 1)).max(1).to_string();
    let mut clients = Command::new(std::env::current_exe()?)
        .args(["clients", &address, &plan.connections.to_string(), &step, &plan.clients.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let result = replace(plan, &mut clients, &control)?;
    if !clients.wait()?.success() {
        return Err("the clients failed".into());
    }
    let report = command(&control, "end")?;
    if !report.contains("abandoned: Some(0)") {
        return Err(format!("the last server abandoned connections: {report}").into());
    }
    let servers = results(stdout)?;
    server.wait()?;
    Ok(Outcome { plan: plan.clone(), clients: result, servers })
}

/// Starts the first generation as a service manager would.
fn start_server(service: &TcpListener, control: &UnixListener) -> Result<Child, Box<dyn Error>> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_read_timeout(Some(BOUND))?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["server", Way::Inherit.name(), "0"]).stdout(Stdio::piped());
    command.stdin(Stdio::from(OwnedFd::from(theirs)));
    let child = handover::spawn(command, &[(NAMES[0], service.as_fd()), (NAMES[1], control.as_fd())])?;
    handover::await_confirmation(&ours)?;
    Ok(child)
}

/// Has the server replaced after every step of the clients. Returns their result.
fn replace(plan: &Plan, clients: &mut Child, control: &SocketAddr) -> Result<Value, Box<dyn Error>> {
    let stdin = clients.stdin.take();
    let mut lines = BufReader::new(clients.stdout.take().expect("it is piped")).lines();
    for handover in 0..plan.handovers {
        match lines.next() {
            Some(line) if line.as_ref().is_ok_and(|line| line == "step") => {}
            other => return Err(format!("the clients ended early: {other:?}").into()),
        }
        let answer = command(control, plan.way.at(handover).name())?;
        let _: u32 = answer.parse().map_err(|_| format!("hand-over {handover}: {answer}"))?;
    }
    drop(stdin);
    let last = lines.map_while(Result::ok).filter(|line| line != "step").last();
    Ok(serde_json::from_str(&last.ok_or("the clients printed no result")?)?)
}

/// Sends a command to the present server, and returns its reply.
fn command(control: &SocketAddr, what: &str) -> Result<String, Box<dyn Error>> {
    let mut stream = UnixStream::connect_addr(control)?;
    stream.set_read_timeout(Some(BOUND))?;
    stream.write_all(what.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Waits until all servers have ended, which all write to one pipe. Returns the result of each.
fn results(stdout: ChildStdout) -> Result<Vec<(u64, u64)>, Box<dyn Error>> {
    let mut servers = Vec::new();
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        let numbers: Vec<u64> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        match numbers[..] {
            [_, answered, left] => servers.push((answered, left)),
            _ => return Err(format!("a server printed {line:?}").into()),
        }
    }
    Ok(servers)
}

impl Outcome {
    fn number(&self, name: &str) -> u64 {
        self.clients[name].as_u64().unwrap_or(u64::MAX)
    }

    /// Returns the number of clients that were lost, of connections that servers left, and of servers that are missing.
    pub(crate) fn lost(&self) -> u64 {
        let lost = ["failed_connects", "resets", "unanswered"].map(|name| self.number(name));
        let left = self.servers.iter().map(|(_, left)| *left);
        let missing = (self.plan.handovers + 1).abs_diff(self.servers.len() as u64);
        lost.into_iter().chain(left).fold(missing, u64::saturating_add)
    }

    pub(crate) fn to_json(&self) -> Value {
        let mut all = json!({
            "way": self.plan.way.name(),
            "handovers": self.plan.handovers,
            "processes": self.servers.len(),
            "answered": self.servers.iter().map(|(answered, _)| answered).sum::<u64>(),
            "left_by_servers": self.servers.iter().map(|(_, left)| left).sum::<u64>(),
        });
        if let (Some(all), Some(clients)) = (all.as_object_mut(), self.clients.as_object()) {
            all.extend(clients.clone());
        }
        all
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.clients["seconds"].as_f64().unwrap_or(0.0);
        writeln!(f, "way              {}", self.plan.way.name())?;
        writeln!(f, "connections      {} in {seconds:.1} s", self.number("connections"))?;
        writeln!(f, "handovers        {}, by {} processes", self.plan.handovers, self.servers.len())?;
        for name in ["failed_connects", "resets", "unanswered"] {
            writeln!(f, "{name:<16} {}", self.number(name))?;
        }
        writeln!(f, "slowest answer   {:.1} ms", self.clients["slowest_ms"].as_f64().unwrap_or(0.0))
    }
}
