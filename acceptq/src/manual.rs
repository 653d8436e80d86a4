//! The man page and the shell completions, generated from the definition of the command line.

use std::io;
use std::process::ExitCode;

use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::Shell;

use crate::{Cli, print_ignoring_epipe};

/// Prints the man page or the completions of a shell, for packages
#[derive(Args, Debug)]
pub(crate) struct Manual {
    page: Page,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Page {
    Man,
    Bash,
    Zsh,
    Fish,
}

impl Manual {
    pub(crate) fn run(&self) -> io::Result<ExitCode> {
        let (mut command, mut text) = (Cli::command(), Vec::new());
        let shell = match self.page {
            Page::Man => None,
            Page::Bash => Some(Shell::Bash),
            Page::Zsh => Some(Shell::Zsh),
            Page::Fish => Some(Shell::Fish),
        };
        match shell {
            Some(shell) => clap_complete::generate(shell, &mut command, "acceptq", &mut text),
            None => man(command, &mut text)?,
        }
        print_ignoring_epipe(&String::from_utf8_lossy(&text))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Writes one page: the command, then each visible subcommand.
fn man(command: clap::Command, out: &mut Vec<u8>) -> io::Result<()> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let mut top = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut top)?;
    // The subcommands have no pages of their own, but sections below.
    out.extend(
        String::from_utf8_lossy(&top).replace("acceptq\\-", "acceptq ").replace("(1)\n", "\n").bytes(),
    );
    for subcommand in command.get_subcommands().filter(|one| !one.is_hide_set()) {
        let man = clap_mangen::Man::new(subcommand.clone());
        out.extend(format!(".SH ACCEPTQ {}\n", subcommand.get_name().to_uppercase()).bytes());
        man.render_synopsis_section(out)?;
        man.render_description_section(out)?;
        man.render_options_section(out)?;
        man.render_extra_section(out)?;
    }
    Ok(())
}
