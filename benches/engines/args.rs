//! What these benches can be told.

use std::process::exit;

use lexopt::prelude::*;

#[derive(Clone, Copy, Debug, Default)]
pub struct Args {
    /// A look, for CI: seconds instead of minutes.
    pub quick: bool,
    /// One JSON object a line instead of a table.
    pub json: bool,
    /// How many workers; all that the bench has if it is not told.
    pub workers: Option<usize>,
}

impl Args {
    pub fn parse(name: &str, about: &str) -> Self {
        match Self::try_parse() {
            Ok(Some(args)) => args,
            Ok(None) => {
                println!("{about}\n\ncargo bench --bench {name} [-- --json] [--quick]");
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
                // `--bench` is cargo's own word, `--test` that of `cargo test --benches`.
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

/// As many descriptors as this process may have; how many that are.
pub fn all_descriptors() -> usize {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    let raised = setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_or(soft, |()| hard);
    usize::try_from(raised).unwrap_or(usize::MAX)
}
