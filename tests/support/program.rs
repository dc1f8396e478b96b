//! The `holdfast` program as an operator types it.

use std::process::Command;

use anyhow::{Context, Result};

/// What a command said, and how it ended.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Runs `holdfast` with these arguments; `HOLDFAST_ADMIN` names the proxy to ask.
pub fn holdfast(admin: &str, arguments: &[&str]) -> Result<Said> {
    run(program().env("HOLDFAST_ADMIN", admin).args(arguments))
}

/// For what asks no proxy.
pub fn holdfast_without_environment(arguments: &[&str]) -> Result<Said> {
    run(program().args(arguments))
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command.env_remove("HOLDFAST_ADMIN").env_remove("RUST_LOG");
    command
}

fn run(command: &mut Command) -> Result<Said> {
    let output = command.output().context("running holdfast")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().context("holdfast was ended by a signal")?;
    Ok(Said { code, stdout: text(&output.stdout), stderr: text(&output.stderr) })
}
