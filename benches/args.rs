//! The command line of the benches.

use std::process::exit;

use lexopt::prelude::*;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Args {
    /// A smoke run, for CI: seconds instead of minutes.
    pub(crate) quick: bool,
    /// Prints one JSON object per line instead of a table.
    pub(crate) json: bool,
    /// The number of workers; every number of the bench unless set.
    pub(crate) workers: Option<usize>,
}

impl Args {
    pub(crate) fn parse(name: &str, about: &str) -> Self {
        match Self::try_parse() {
            Ok(Some(args)) => args,
            Ok(None) => {
                println!("{about}\n\ncargo bench -p benches --bench {name} [-- --json] [--quick]");
                exit(0)
            }
            Err(error) => {
                eprintln!("{name}: {error}");
                exit(2)
            }
        }
    }

    fn try_parse() -> Result<Option<Self>, lexopt::Error> {
        let mut args = Self::default();
        let mut parser = lexopt::Parser::from_env();
        while let Some(arg) = parser.next()? {
            match arg {
                // cargo passes `--bench`, and `cargo test --benches` passes `--test`.
                Long("quick" | "test") => args.quick = true,
                Long("json") => args.json = true,
                Long("bench") => {}
                Long("workers") => args.workers = Some(parser.value()?.parse()?),
                Long("help") | Short('h') => return Ok(None),
                _ => return Err(arg.unexpected()),
            }
        }
        Ok(Some(args))
    }
}

/// Raises the soft limit of descriptors to the hard one, and returns it.
pub(crate) fn all_descriptors() -> usize {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    let raised = setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_or(soft, |()| hard);
    usize::try_from(raised).unwrap_or(usize::MAX)
}
