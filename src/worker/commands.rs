//! [`Commands`]: has commands of remote control carried out that are the program's own.
//!
//! One is begun after the other, in the order in which they came, unless one takes long: then it is not waited for, and
//! keeps no other, and no task, from going on.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;
use tracing::{debug, error};

use super::remote::Remote;
use crate::app::{Panel, Payload};
use crate::control::{self, ControlRequest};
use crate::protocol::repr;

/// A command that takes longer is not waited for.
const TURN: Duration = Duration::from_millis(200);
/// How many there are at a time that take long.
const MOST: usize = 64;

/// Where commands are put that are the program's own.
#[derive(Debug, Clone)]
pub(crate) struct CommandDoor {
    panel: Arc<dyn Panel>,
    requests: mpsc::UnboundedSender<ControlRequest>,
}

impl CommandDoor {
    /// Whether the command goes before one of the worker's.
    pub(crate) fn takes(&self, request: &ControlRequest) -> bool {
        self.panel.overrides(&request.method)
    }

    pub(crate) fn put(&self, request: ControlRequest) {
        // They are carried out for as long as there is a door.
        let _ = self.requests.send(request);
    }
}

/// Carries them out.
pub(crate) struct Commands {
    panel: Arc<dyn Panel>,
    remote: Arc<Remote>,
    places: Arc<Semaphore>,
}

impl Commands {
    /// Begins to carry out what comes through the door.
    pub(crate) fn start(panel: Arc<dyn Panel>, remote: Arc<Remote>) -> CommandDoor {
        let (requests, heard) = mpsc::unbounded_channel();
        let door = CommandDoor { panel: Arc::clone(&panel), requests };
        tokio::spawn(Commands { panel, remote, places: Arc::new(Semaphore::new(MOST)) }.run(heard));
        door
    }

    async fn run(self, mut requests: mpsc::UnboundedReceiver<ControlRequest>) {
        while let Some(request) = requests.recv().await {
            debug!("pidbox received method {} [ticket:{}]", request.call(), repr::repr(&request.ticket));
            let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
                self.refuse(request).await;
                continue;
            };
            let (panel, method, arguments) =
                (Arc::clone(&self.panel), request.method.clone(), request.arguments.clone());
            let is_asked = request.reply_to.is_some();
            let command = spawn_blocking(move || panel.obey(&method, &arguments, is_asked));
            let remote = Arc::clone(&self.remote);
            let answering = tokio::spawn(async move {
                answer(&remote, request, command).await;
                drop(place);
            });
            // One that takes longer goes on.
            let _ = timeout(TURN, answering).await;
        }
    }

    async fn refuse(&self, request: ControlRequest) {
        let refusal = format!("{MOST} commands of the project's own are being carried out, and none has ended");
        error!("{}: {refusal}", request.method);
        if let Some(reply_to) = request.reply_to {
            self.remote.reply(reply_to, request.ticket, control::error(refusal)).await;
        }
    }
}

async fn answer(remote: &Remote, request: ControlRequest, command: JoinHandle<Option<Payload>>) {
    // One that panics has said so, and answers nothing.
    let payload = command.await.ok().flatten();
    if let (Some(reply_to), Some(payload)) = (request.reply_to, payload) {
        remote.send(reply_to, remote.bearing(request.ticket, payload)).await;
    }
}
