//! Where the programs are: beside the one that runs, or in `HOLDFAST_BIN_DIR`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// The proxy. (A test of the package itself may use `CARGO_BIN_EXE_holdfast` instead.)
pub fn holdfast_binary() -> Result<PathBuf> {
    find("holdfast", "holdfast")
}

/// `arena` or `players`.
pub fn sample_binary(name: &str) -> Result<PathBuf> {
    find(name, "holdfast-sample")
}

fn find(name: &str, package: &str) -> Result<PathBuf> {
    let folders = folders()?;
    let found = folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
    if let Some(path) = found {
        return Ok(path);
    }
    let release = if folders.iter().any(|folder| folder.ends_with("release")) { " --release" } else { "" };
    bail!("`{name}` is not in {folders:?}: build it with `cargo build{release} -p {package}`")
}

/// Programs lie in `target/<profile>/`; tests and benches run from `deps/` or `examples/` in it.
fn folders() -> Result<Vec<PathBuf>> {
    if let Some(folder) = std::env::var_os("HOLDFAST_BIN_DIR") {
        return Ok(vec![PathBuf::from(folder)]);
    }
    let here = std::env::current_exe().context("this program's own path")?;
    Ok(here.ancestors().skip(1).take(2).map(PathBuf::from).collect())
}

/// A program named by the variable, else the one at `default`; `hint` says how to get it.
pub fn tool(variable: &str, default: &str, hint: &str) -> Result<PathBuf> {
    let path = std::env::var_os(variable).map_or_else(|| PathBuf::from(default), PathBuf::from);
    if path.as_os_str().is_empty() || !path.is_file() {
        bail!("{variable} is {path:?}, which is no program: {hint}");
    }
    Ok(path)
}
