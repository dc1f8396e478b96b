//! The `holdfast` program as an operator types it.

use std::process::{Command, Output};

use anyhow::{Context, Result};

/// What a command said, and how it ended.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Runs `holdfast` with these arguments against a proxy that `HOLDFAST_ADMIN` names.
pub fn holdfast(admin: &str, arguments: &[&str]) -> Result<Said> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command.env("HOLDFAST_ADMIN", admin).args(arguments);
    said(&command.output().context("running holdfast")?)
}

fn said(output: &Output) -> Result<Said> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().context("holdfast was ended by a signal")?;
    Ok(Said { code, stdout: text(&output.stdout), stderr: text(&output.stderr) })
}
