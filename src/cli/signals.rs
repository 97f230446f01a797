//! What signals do: [`Escalation`] decides, [`listen`] carries it out (celery/apps/worker.py `_shutdown_handler`).

use std::future::{pending, poll_fn};
use std::io::{self, IsTerminal};
use std::sync::mpsc;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::failure::say;
use crate::{Error, ErrorKind, Result};

/// A signal that a worker heeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heeded {
    Terminate,
    Interrupt,
    Quit,
    Hangup,
    User1,
}

impl Heeded {
    /// Its name, if it ends the worker for good.
    pub(super) fn ends(self) -> Option<&'static str> {
        match self {
            Heeded::Terminate => Some("SIGTERM"),
            Heeded::Interrupt => Some("SIGINT"),
            Heeded::Quit => Some("SIGQUIT"),
            Heeded::Hangup | Heeded::User1 => None,
        }
    }
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Stop reserving, finish what runs.
    Warm,
    /// Wait as long as the soft shutdown may take, then stop what runs.
    Cold,
    /// Do not even wait for that.
    ColdNow,
    /// End the process on the spot.
    Exit,
    /// Log what is running.
    Dump,
}

/// How far the shutdown has come: each signal may go further, never back.
#[derive(Debug, Default)]
pub(super) struct Escalation {
    /// `REMAP_SIGTERM=SIGQUIT` is in the environment.
    remapped: bool,
    stage: Stage,
    interrupted: bool,
    restart: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    #[default]
    Running,
    Warm,
    Cold,
    ColdNow,
}

impl Escalation {
    /// Nothing has been asked for yet. `remapped`: SIGTERM is to do what SIGQUIT does.
    pub(super) fn new(remapped: bool) -> Self {
        Escalation { remapped, ..Escalation::default() }
    }

    /// What a signal does now, and what is said about it.
    pub(super) fn step(&mut self, signal: Heeded) -> (Action, &'static [&'static str]) {
        let signal = if signal == Heeded::Terminate && self.remapped { Heeded::Quit } else { signal };
        match signal {
            Heeded::User1 => (Action::Dump, &[]),
            Heeded::Terminate => self.warm(&["worker: Warm shutdown (MainProcess)"]),
            Heeded::Hangup => {
                self.restart |= self.stage == Stage::Running;
                self.warm(&["Restarting the worker"])
            }
            Heeded::Interrupt if self.interrupted || self.stage >= Stage::Cold => self.cold(),
            Heeded::Interrupt => {
                self.interrupted = true;
                self.warm(&[
                    "worker: Hitting Ctrl+C again will initiate cold shutdown, terminating all running tasks!",
                    "worker: Warm shutdown (MainProcess)",
                ])
            }
            Heeded::Quit => self.cold(),
        }
    }

    /// The exit code of a worker that has stopped: 1 after Ctrl+C.
    pub(super) fn exit_code(&self) -> u8 {
        u8::from(self.interrupted)
    }

    /// Whether the program is to be started again.
    pub(super) fn is_restart(&self) -> bool {
        self.restart && self.stage <= Stage::Warm
    }

    fn warm(&mut self, said: &'static [&'static str]) -> (Action, &'static [&'static str]) {
        self.stage = self.stage.max(Stage::Warm);
        (Action::Warm, said)
    }

    fn cold(&mut self) -> (Action, &'static [&'static str]) {
        match self.stage {
            Stage::Running | Stage::Warm => {
                self.stage = Stage::Cold;
                (Action::Cold, COLD)
            }
            Stage::Cold => {
                self.stage = Stage::ColdNow;
                (Action::ColdNow, &["Waiting gracefully for cold shutdown to complete..."])
            }
            Stage::ColdNow => (Action::Exit, &[]),
        }
    }
}

const COLD: &[&str] =
    &["worker: Hitting Ctrl+C again will terminate all running tasks!", "worker: Cold shutdown (MainProcess)"];

/// The signals of this process, or what stands for them.
#[derive(Debug)]
pub(super) enum Signals {
    OfProcess(Vec<(Heeded, Signal)>),
    /// One of many things in its process: closed by who ends it.
    Line(Option<UnixStream>),
}

impl Signals {
    /// Heeds none: the worker ends warmly when the other end of the line is closed.
    ///
    /// # Errors
    /// `Io`
    pub(super) fn by_line(line: std::os::unix::net::UnixStream) -> Result<Self> {
        let line = line.set_nonblocking(true).and_then(|()| UnixStream::from_std(line));
        line.map(|line| Signals::Line(Some(line))).map_err(failed)
    }

    /// Heeds them from now on. Where there is a terminal, SIGHUP keeps its usual meaning: closing the window ends the
    /// worker.
    ///
    /// # Errors
    /// `Io`
    pub(super) fn heed() -> Result<Self> {
        let mut kinds = vec![
            (Heeded::Terminate, SignalKind::terminate()),
            (Heeded::Interrupt, SignalKind::interrupt()),
            (Heeded::Quit, SignalKind::quit()),
            (Heeded::User1, SignalKind::user_defined1()),
        ];
        if !io::stdout().is_terminal() {
            kinds.push((Heeded::Hangup, SignalKind::hangup()));
        }
        let heed = |(heeded, kind)| signal(kind).map(|signal| (heeded, signal));
        let signals: io::Result<Vec<_>> = kinds.into_iter().map(heed).collect();
        signals.map(Signals::OfProcess).map_err(failed)
    }

    /// The next signal, and whether somebody at a terminal may have sent it.
    pub(super) async fn next(&mut self) -> (Heeded, bool) {
        match self {
            Signals::OfProcess(signals) => (first(signals).await, true),
            Signals::Line(line) => {
                ended(line).await;
                (Heeded::Terminate, false)
            }
        }
    }
}

async fn first(signals: &mut [(Heeded, Signal)]) -> Heeded {
    poll_fn(|context| {
        let mut signals = signals.iter_mut();
        let came = signals.find_map(|(heeded, signal)| signal.poll_recv(context).is_ready().then_some(*heeded));
        came.map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

/// Returns when the line has ended, once; what is said over it means nothing.
async fn ended(line: &mut Option<UnixStream>) {
    let Some(open) = line else { return pending().await };
    while matches!(open.read(&mut [0; 16]).await, Ok(1..)) {}
    *line = None;
}

fn failed(error: io::Error) -> Error {
    Error::new(ErrorKind::Io, "listen to signals").with_source(error)
}

/// How long somebody who does not read keeps the worker from going on.
const PATIENCE: Duration = Duration::from_secs(1);

/// Says each line as Celery does, on a line of its own whatever stands on the terminal.
pub(super) fn announce(lines: &'static [&'static str]) {
    let (said, heard) = mpsc::channel();
    let saying = thread::Builder::new().spawn(move || {
        lines.iter().for_each(|line| say(&format!("\n{line}")));
        // Nobody waits any more when nobody reads.
        let _ = said.send(());
    });
    if saying.is_ok() {
        let _ = heard.recv_timeout(PATIENCE);
    }
}

#[cfg(test)]
mod tests {
    use super::Heeded::{Hangup, Interrupt, Quit, Terminate, User1};
    use super::*;

    fn check(remapped: bool, signals: &[Heeded], expected: &[Action], exit_code: u8) {
        let mut escalation = Escalation::new(remapped);
        let actions: Vec<_> = signals.iter().map(|signal| escalation.step(*signal).0).collect();
        assert_eq!(actions, expected, "{signals:?}");
        assert_eq!(escalation.exit_code(), exit_code, "{signals:?}");
    }

    #[test]
    fn what_signals_do_one_after_the_other() {
        use Action::{Cold, ColdNow, Dump, Exit, Warm};
        check(false, &[Terminate, Terminate], &[Warm, Warm], 0);
        check(false, &[Interrupt], &[Warm], 1);
        check(false, &[Interrupt, Interrupt, Interrupt, Interrupt], &[Warm, Cold, ColdNow, Exit], 1);
        check(false, &[Terminate, Interrupt, Interrupt], &[Warm, Warm, Cold], 1);
        check(false, &[Quit, Quit, Quit], &[Cold, ColdNow, Exit], 0);
        check(false, &[Quit, Interrupt], &[Cold, ColdNow], 0);
        check(false, &[Terminate, Quit], &[Warm, Cold], 0);
        check(true, &[Terminate, Terminate], &[Cold, ColdNow], 0);
        check(false, &[User1, Terminate], &[Dump, Warm], 0);
    }

    #[tokio::test]
    async fn a_line_that_is_closed_ends_a_worker_once() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut signals = Signals::by_line(theirs).unwrap();
        std::io::Write::write_all(&mut &ours, b"what is said means nothing").unwrap();
        assert!(futures_util::poll!(std::pin::pin!(signals.next())).is_pending());
        drop(ours);
        assert_eq!(signals.next().await, (Terminate, false));
        assert!(futures_util::poll!(std::pin::pin!(signals.next())).is_pending());
    }

    #[test]
    fn a_restart_is_forgotten_when_the_shutdown_turns_cold() {
        let mut escalation = Escalation::new(false);
        assert_eq!(escalation.step(Hangup).0, Action::Warm);
        assert!(escalation.is_restart());
        escalation.step(Quit);
        assert!(!escalation.is_restart());
        let mut escalation = Escalation::new(false);
        escalation.step(Terminate);
        escalation.step(Hangup);
        assert!(!escalation.is_restart(), "a worker that is to end does not come back");
    }
}
