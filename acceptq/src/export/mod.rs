//! `acceptq export`: queues and verdicts as metrics for Prometheus.

mod http;
mod metrics;

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::doctor::collect::collect;
use crate::doctor::{diagnose::diagnose, period};
use crate::print_ignoring_epipe;
use crate::probe::{Diag, Target, Targets};

/// Exports queues and verdicts as metrics for Prometheus
///
/// Prints the metrics once; or serves them over HTTP (--listen), where each scrape observes the listeners for a
/// second; or writes them to a file for node_exporter (--textfile), once. Run it as root: otherwise the owners
/// are not visible, and most verdicts are missing.
#[derive(Args, Debug)]
pub(crate) struct Export {
    /// Ports, addresses, Unix sockets [default: all listeners]. Each address has 21 series
    #[arg(value_name = "TARGET")]
    targets: Vec<Target>,
    /// Serve http://ADDRESS/metrics, for example 127.0.0.1:9117
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Write a .prom file, by a rename, for node_exporter's textfile collector
    #[arg(long, value_name = "PATH", conflicts_with = "listen")]
    textfile: Option<PathBuf>,
    /// Observation period in seconds
    #[arg(long = "for", value_name = "SECONDS", default_value = "1", value_parser = period)]
    time: Duration,
}

impl Export {
    /// Returns the listener of the endpoint, in the network namespace of the caller.
    pub(crate) fn bind(&self) -> io::Result<Option<TcpListener>> {
        self.listen.map(http::bind).transpose()
    }

    pub(crate) fn run(&self, endpoint: Option<TcpListener>) -> io::Result<ExitCode> {
        match (endpoint, &self.textfile) {
            (Some(listener), _) => http::serve(listener, || self.observe())?,
            (_, Some(path)) => replace(path, &self.observe()?)?,
            _ => print_ignoring_epipe(&self.observe()?)?,
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Observes the listeners. Returns the metrics.
    fn observe(&self) -> io::Result<String> {
        let diag = Diag::new()?;
        let targets = Targets::each(&self.targets);
        let collected = collect(&diag, &targets, self.time)?;
        let name = |target: &Target| target.to_string().trim_start_matches("port ").to_string();
        let of_target = |target: &Target| Ok((name(target), target.listeners(&diag)?.0.len()));
        let listening = self.targets.iter().map(of_target).collect::<io::Result<Vec<_>>>()?;
        let diagnoses = collected.inspections.iter();
        let diagnoses: Vec<_> =
            diagnoses.map(|inspection| (inspection, diagnose(&inspection.facts).verdict())).collect();
        Ok(metrics::text(&diagnoses, &listening, &collected))
    }
}

/// Replaces a file, so that a reader sees either the old or the new one.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    // In the same directory; node_exporter ignores a file that does not end in .prom.
    let mut new = path.as_os_str().to_owned();
    new.push(format!(".{}", std::process::id()));
    let written = fs::write(&new, text).and_then(|()| fs::rename(&new, path));
    written.map_err(|error| {
        let _ = fs::remove_file(&new);
        io::Error::new(error.kind(), format!("cannot write {}: {error}", path.display()))
    })
}
