//! `top`: a live view of workers and tasks of the whole fleet, from their events; Python's workers are seen as ours are.
//!
//! It asks all workers to send events of tasks (`enable_events`), as Celery's own monitor does. The terminal is given
//! back as it was, however the command ends.

mod view;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyEvent};
use ratatui::{DefaultTerminal, Terminal};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::Client;
use super::options::TopArguments;
use crate::app::{App, Events, Monitor};
use crate::cli::failure::{Failure, say};
use crate::cli::options::GlobalOptions;
use crate::events::Cluster;
use crate::protocol::Map;
use crate::time::Clock;
use crate::{Error, ErrorKind, Result};
use view::{Asked, View};

/// How often the view is drawn.
const TICK: Duration = Duration::from_millis(500);
/// How often workers that came later are asked for events.
const ASK: Duration = Duration::from_secs(5);
/// How long it waits before it connects again.
const PAUSE: Duration = Duration::from_secs(1);
/// How many messages may wait to be shown.
const NEWS: usize = 1000;
/// The frame of `--once`.
const PLAIN: (u16, u16) = (120, 40);

/// Runs the command.
pub(in crate::cli) fn run(app: App, global: &GlobalOptions, arguments: &TopArguments) -> Result<ExitCode, Failure> {
    let client = Client::new(app, global)?;
    let monitor = Monitor::new(&client.app)?;
    if arguments.once {
        say(client.run(once(&monitor, arguments.timeout)).map_err(Failure::unavailable)?.trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    if !io::stdout().is_terminal() {
        return Err(Failure::usage("standard output is no terminal: top --once prints one frame"));
    }
    // What cannot be reached is said before the terminal is taken.
    let events = client.run(open(&monitor)).map_err(Failure::unavailable)?;
    let terminal = ratatui::try_init().map_err(|error| failed("take the terminal", error))?;
    let ended = client.run(live(monitor, events, terminal));
    ratatui::restore();
    ended?;
    Ok(ExitCode::SUCCESS)
}

/// One frame of what was heard in this time.
async fn once(monitor: &Monitor, patience: Duration) -> Result<String> {
    let (mut cluster, end) = (Cluster::default(), Instant::now() + patience);
    let mut events = open(monitor).await?;
    while let Ok(heard) = timeout_at(end, events.next()).await {
        heard?.iter().for_each(|event| cluster.apply(event));
    }
    events.close().await?;
    Ok(plain(&View::default(), &cluster, Clock::system().epoch_seconds(), PLAIN))
}

async fn open(monitor: &Monitor) -> Result<Events> {
    let mut events = monitor.open().await?;
    events.tell("enable_events").await?;
    Ok(events)
}

/// A frame as text.
fn plain(view: &View, cluster: &Cluster, now: f64, (width, height): (u16, u16)) -> String {
    let Ok(mut terminal) = Terminal::new(TestBackend::new(width, height));
    let Ok(_) = terminal.draw(|frame| view.draw(frame, cluster, now));
    let buffer = terminal.backend().buffer();
    let cells: Vec<&str> = buffer.content().iter().map(|cell| cell.symbol()).collect();
    let lines = cells.chunks(usize::from(width).max(1)).map(|line| line.concat().trim_end().to_owned());
    lines.collect::<Vec<_>>().join("\n")
}

/// The view, until somebody ends it.
async fn live(monitor: Monitor, events: Events, mut terminal: DefaultTerminal) -> Result<()> {
    let (mut cluster, mut view, clock) = (Cluster::default(), View::default(), Clock::system());
    let (mut keys, mut terminated) = (keys(), heed(SignalKind::terminate())?);
    let (sender, mut news) = mpsc::channel(NEWS);
    let _listener = AbortOnDropHandle::new(tokio::spawn(listen(monitor, events, sender)));
    let mut draw = interval(TICK);
    draw.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            biased;
            key = keys.recv() => match key {
                Some(key) if view.key(key, &cluster) == Asked::Nothing => draw.reset_immediately(),
                _ => return Ok(()),
            },
            _ = terminated.recv() => return Ok(()),
            _ = draw.tick() => {
                let drawn = terminal.draw(|frame| view.draw(frame, &cluster, clock.epoch_seconds()));
                drawn.map_err(|error| failed("draw", error))?;
            }
            Some(heard) = news.recv() => match heard {
                Ok(events) => {
                    view.trouble = None;
                    events.iter().for_each(|event| cluster.apply(event));
                }
                Err(error) => view.trouble = Some(format!("connecting again: {error}")),
            },
        }
    }
}

/// Hands on what is heard, and why nothing is; connects again for as long as somebody listens. Workers that came later
/// are asked for events, too.
async fn listen(monitor: Monitor, events: Events, news: mpsc::Sender<Result<Vec<Map>>>) {
    let (mut events, mut ask) = (Some(events), interval(ASK));
    ask.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        let heard = match &mut events {
            Some(open) => tokio::select! {
                heard = open.next() => heard,
                _ = ask.tick() => open.tell("enable_events").await.map(|()| Vec::new()),
            },
            None => {
                sleep(PAUSE).await;
                open(&monitor).await.map(|opened| {
                    events = Some(opened);
                    Vec::new()
                })
            }
        };
        if heard.is_err() {
            events = None;
        }
        if news.send(heard).await.is_err() {
            return;
        }
    }
}

/// The keys, read on a thread of their own, which ends with the process.
fn keys() -> mpsc::UnboundedReceiver<KeyEvent> {
    let (sender, keys) = mpsc::unbounded_channel();
    thread::spawn(move || {
        while let Ok(event) = event::read() {
            if let Event::Key(key) = event
                && sender.send(key).is_err()
            {
                return;
            }
        }
    });
    keys
}

fn heed(kind: SignalKind) -> Result<Signal> {
    signal(kind).map_err(|error| failed("heed signals", error))
}

fn failed(doing: &str, error: io::Error) -> Error {
    Error::new(ErrorKind::Io, doing).with_source(error)
}
