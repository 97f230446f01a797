//! [`Process`]: a program that runs beside a test, gone with it.

use std::io;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// A program that runs, or has run and may again. Dropped, it is ended: whoever keeps it with its folder names it first.
pub(crate) struct Process {
    /// What ends it at once, and what it has started with it.
    ending: Signal,
    child: Option<Child>,
}

impl Process {
    /// One that does not run yet.
    pub(crate) fn ended_by(ending: Signal) -> Self {
        Process { ending, child: None }
    }

    /// Starts it. Nobody reads what it prints.
    ///
    /// # Errors
    /// There is no such program.
    pub(crate) fn start(&mut self, command: &mut Command) -> io::Result<()> {
        self.stop();
        self.child = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        Ok(())
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.id()).ok().and_then(Pid::from_raw).expect("a process");
        // One that has ended is there until it is waited for, which `stop` alone does.
        kill_process(id, signal).expect("it is there");
    }

    /// Ends it, if it runs, and waits for that.
    pub(crate) fn stop(&mut self) {
        if self.child.is_some() {
            self.signal(self.ending);
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}
