//! A process of a store.
//!
//! Invariant: no process outlives whoever started it, unless that is killed itself.

use std::{
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use tokio::time::sleep;

use super::Failure;

/// How often to look whether a process has ended.
const LOOK: Duration = Duration::from_millis(20);

/// A process that is killed when it is dropped.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    /// Starts it; it reads nothing.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(command: &mut Command) -> Result<Self, Failure> {
        Ok(Self(command.stdin(Stdio::null()).spawn()?))
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// As a power cut does it.
    ///
    /// # Errors
    /// If it cannot be killed.
    pub fn kill(mut self) -> Result<(), Failure> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// If there is no such process any more.
    pub fn signal(&self, signal: Signal) -> Result<(), Failure> {
        Ok(signal::kill(Pid::from_raw(i32::try_from(self.0.id())?), signal)?)
    }

    /// Tells it to stop.
    ///
    /// # Errors
    /// If there is no such process any more.
    pub fn terminate(&self) -> Result<(), Failure> {
        self.signal(Signal::SIGTERM)
    }

    /// How it has ended, if it has.
    ///
    /// # Errors
    /// If that cannot be found out.
    pub fn end(&mut self) -> Result<Option<ExitStatus>, Failure> {
        Ok(self.0.try_wait()?)
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// If that cannot be found out.
    pub async fn ended(&mut self) -> Result<ExitStatus, Failure> {
        loop {
            if let Some(status) = self.end()? {
                return Ok(status);
            }
            sleep(LOOK).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        self.0.kill().unwrap_or_default();
        self.0.wait().map(drop).unwrap_or_default();
    }
}
