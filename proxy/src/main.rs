//! The `holdfast` command: from the command line to the library.

use std::process::ExitCode;

use clap::Parser;
use holdfast::cli::{self, Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Command::Run(args) => holdfast::run::run(&args.config).into(),
        Command::Check(args) => holdfast::check::command(&args.path, cli.json).into(),
        Command::Ask(ask) => cli::run(ask, cli.admin, cli.json).into(),
    }
}
