//! One child process with its log, and the folder of a run. A child ends when its value is dropped.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

use crate::wait;

/// A run's folder: each process's log, configs, documents, sockets. Removed at the end, unless the run failed.
///
/// Declare it before the processes, so that it goes last.
pub struct Stage {
    folder: Option<tempfile::TempDir>,
    path: PathBuf,
    /// Set for every process started from now on.
    environment: Vec<(OsString, OsString)>,
}

const FROZEN_WITHIN: Duration = Duration::from_secs(10);
/// How many lines of each log are shown when a run fails.
const TAIL_LINES: usize = 25;

impl Stage {
    pub fn new(name: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix(&format!("holdfast-{name}-")).tempdir()?;
        Ok(Self { path: folder.path().to_owned(), folder: Some(folder), environment: Vec::new() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sets a variable for every process started from now on.
    pub fn set(&mut self, variable: &str, value: &str) {
        self.environment.push((variable.into(), value.into()));
    }

    /// Writes a file of the run, whole or not at all.
    pub fn write(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        replace_file(&path, content)?;
        Ok(path)
    }

    /// The folder stays, and its path and the logs' ends are told.
    pub fn keep(&mut self) {
        if let Some(folder) = self.folder.take() {
            let path = folder.keep();
            for log in logs(&path) {
                eprintln!("--- {}", log.display());
                let text = std::fs::read_to_string(&log).unwrap_or_default();
                let skip = text.lines().count().saturating_sub(TAIL_LINES);
                text.lines().skip(skip).for_each(|line| eprintln!("    {line}"));
            }
            eprintln!("--- all of the run's files: {}", path.display());
        }
    }
}

fn logs(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut logs: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|it| it == "log"))
        .collect();
    logs.sort();
    logs
}

impl Drop for Stage {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.keep();
        }
    }
}

/// Writes beside the file and renames, so that no reader sees half of it.
pub(crate) fn replace_file(path: &Path, content: &str) -> Result<()> {
    let folder = path.parent().context("a file has a folder")?;
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let mut name = OsString::from(".");
    name.push(path.file_name().context("a file has a name")?);
    name.push(".new");
    let beside = folder.join(name);
    std::fs::write(&beside, content).with_context(|| beside.display().to_string())?;
    std::fs::rename(&beside, path).with_context(|| path.display().to_string())
}

/// A program with its arguments, started any number of times, one run at a time.
pub struct Process {
    name: String,
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    log: PathBuf,
    piped: bool,
    child: Option<Child>,
}

impl Process {
    /// Not started yet. `name` names its log.
    pub fn new<A: Into<OsString>>(
        stage: &Stage,
        name: &str,
        program: PathBuf,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            program,
            arguments: arguments.into_iter().map(Into::into).collect(),
            environment: stage.environment.clone(),
            log: stage.path.join(format!("{name}.log")),
            piped: false,
            child: None,
        }
    }

    #[must_use]
    pub fn with_environment(mut self, variable: &str, value: &str) -> Self {
        self.environment.push((variable.into(), value.into()));
        self
    }

    /// Its stdin and stdout are read and written by us.
    #[must_use]
    pub(crate) fn piped(mut self) -> Self {
        self.piped = true;
        self
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// All that it has logged, over all its runs.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn start(&mut self) -> Result<()> {
        if self.is_running() {
            bail!("{} runs already", self.name);
        }
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).envs(self.environment.iter().cloned());
        self.connect(&mut command, log)?;
        let child = command.spawn().with_context(|| format!("starting {}", self.program.display()))?;
        self.child = Some(child);
        Ok(())
    }

    fn connect(&self, command: &mut Command, log: File) -> Result<()> {
        if self.piped {
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
        } else {
            command.stdin(Stdio::null()).stdout(log.try_clone()?);
        }
        command.stderr(log);
        Ok(())
    }

    pub(crate) fn take_pipes(&mut self) -> Option<(ChildStdin, ChildStdout)> {
        let child = self.child.as_mut()?;
        Some((child.stdin.take()?, child.stdout.take()?))
    }

    pub fn pid(&self) -> Result<u32> {
        self.child.as_ref().map(Child::id).with_context(|| format!("{} doesn't run", self.name))
    }

    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Only ever to a child that hasn't been waited for, so the id can't be another process's.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if !self.is_running() {
            bail!("{} doesn't run: no {signal:?} for it", self.name);
        }
        let pid = Pid::from_raw(self.pid()?.cast_signed()).context("a process id is above 0")?;
        kill_process(pid, signal).with_context(|| format!("{signal:?} to {}", self.name))
    }

    /// SIGTERM; see [`Self::wait`].
    pub fn terminate(&mut self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// SIGKILL, and waits for its end.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.wait(Duration::from_secs(10)).map(drop)
    }

    /// SIGSTOP; [`Self::thaw`] lets it go on. Returns when none of its threads runs any more: on a busy machine that
    /// takes a while.
    pub fn freeze(&mut self) -> Result<()> {
        self.signal(Signal::STOP)?;
        let tasks = PathBuf::from(format!("/proc/{}/task", self.pid()?));
        wait::until(&format!("{} stands still", self.name), FROZEN_WITHIN, || {
            let mut tasks = std::fs::read_dir(&tasks).into_iter().flatten().flatten();
            tasks.all(|task| state(&task.path()) == Some('T'))
        })
    }

    pub fn thaw(&mut self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Waits for its end.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let name = self.name.clone();
        let child = self.child.as_mut().with_context(|| format!("{name} doesn't run"))?;
        let status = wait::until_some(&format!("the end of {name}"), within, || Ok(child.try_wait()?))?;
        self.child = None;
        Ok(status)
    }

    /// Waits until `ready` holds, and fails at once if the process ends before.
    pub fn wait_ready(
        &mut self,
        what: &str,
        within: Duration,
        mut ready: impl FnMut() -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + within;
        let name = self.name.clone();
        wait::until_some(&format!("{name}: {what}"), deadline - Instant::now(), || {
            if ready() {
                return Ok(Some(()));
            }
            if !self.is_running() {
                bail!("{name} ended before it was ready; its log:\n{}", self.log());
            }
            Ok(None)
        })
    }
}

/// The third field of a thread's `stat`.
fn state(task: &Path) -> Option<char> {
    let text = std::fs::read_to_string(task.join("stat")).ok()?;
    text.rsplit_once(')')?.1.trim().chars().next()
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended already: then there is nothing to kill, only to collect.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn state_of(pid: u32) -> Option<char> {
        state(Path::new(&format!("/proc/{pid}")))
    }

    fn sleeper(stage: &Stage) -> Process {
        let mut process = Process::new(stage, "sleeper", "/bin/sleep".into(), ["600"]);
        process.start().unwrap();
        process
    }

    #[test]
    fn a_process_ends_with_its_value() {
        let stage = Stage::new("test").unwrap();
        let process = sleeper(&stage);
        let pid = process.pid().unwrap();
        assert!(state_of(pid).is_some());
        drop(process);
        assert_eq!(state_of(pid), None);
    }

    #[test]
    fn signals_reach_it_and_it_starts_again() {
        let stage = Stage::new("test").unwrap();
        let mut process = sleeper(&stage);
        let pid = process.pid().unwrap();
        process.freeze().unwrap();
        assert_eq!(state_of(pid), Some('T'));
        process.thaw().unwrap();
        wait::until("thawed", SOON, || state_of(pid) != Some('T')).unwrap();
        process.terminate().unwrap();
        assert!(!process.wait(SOON).unwrap().success());
        assert!(process.signal(Signal::TERM).is_err(), "nobody there");
        process.start().unwrap();
        assert_ne!(process.pid().unwrap(), pid);
        process.kill().unwrap();
        assert!(!process.is_running());
    }

    #[test]
    fn a_process_that_ends_before_it_is_ready_is_told_with_its_log() {
        let stage = Stage::new("test").unwrap();
        let mut process = Process::new(&stage, "liar", "/bin/sh".into(), ["-c", "echo no such luck >&2"]);
        process.start().unwrap();
        let error = process.wait_ready("ready", SOON, || false).unwrap_err().to_string();
        assert!(
            error.contains("liar ended before it was ready") && error.contains("no such luck"),
            "{error}"
        );
    }

    #[test]
    fn the_folder_goes_at_the_end_unless_it_is_kept() {
        let mut kept = Stage::new("test").unwrap();
        let gone = Stage::new("test").unwrap();
        let (kept_path, gone_path) = (kept.path().to_owned(), gone.path().to_owned());
        kept.keep();
        drop((kept, gone));
        assert!(kept_path.is_dir() && !gone_path.exists());
        std::fs::remove_dir(kept_path).unwrap();
    }
}
