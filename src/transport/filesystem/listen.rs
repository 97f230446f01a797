//! [`FilesystemSubscription`]: a queue of one's own that is bound for as long as somebody listens.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_util::sync::CancellationToken;

use super::connection::Link;
use super::files::{read_all, remove};
use super::open::{open as open_message, set_aside};
use super::records;
use crate::protocol::envelope;
use crate::transport::binding::Binding;
use crate::transport::{Broadcast, Queue, Subscription, Undecodable};
use crate::{Error, ErrorKind, Result};

pub(super) struct FilesystemSubscription {
    link: Arc<Link>,
    heard: mpsc::UnboundedReceiver<Broadcast>,
    stop: CancellationToken,
    /// Told when the queue is unbound and empty.
    ended: Option<tokio::sync::oneshot::Receiver<()>>,
}

/// Empties the queue, binds it, and hears what comes from then on.
pub(super) async fn open(
    link: &Arc<Link>,
    queue: &Queue,
    stop: CancellationToken,
) -> Result<(FilesystemSubscription, JoinHandle<()>)> {
    let listener = Listener { link: Arc::clone(link), exchange: queue.exchange.clone(), binding: Binding::of(queue) };
    let listener = spawn_blocking(move || listener.begin().map(|record| (listener, record))).await;
    let (listener, record) = listener.map_err(|_| link.is_lost())??;
    let ((sender, heard), (end, ended)) = (mpsc::unbounded_channel(), tokio::sync::oneshot::channel());
    let (own, stopping) = (Arc::clone(link), stop.clone());
    let driver = tokio::spawn(async move {
        let listener = Arc::new(listener);
        run(&own, &listener, sender, &stopping).await;
        let ending = spawn_blocking(move || listener.end(&record));
        // Nobody waits for an end that a runtime's own end cut short.
        let _ = ending.await;
        let _ = end.send(());
    });
    Ok((FilesystemSubscription { link: Arc::clone(link), heard, stop, ended: Some(ended) }, driver))
}

#[async_trait]
impl Subscription for FilesystemSubscription {
    async fn next(&mut self) -> Result<Broadcast> {
        tokio::select! {
            biased;
            () = self.link.lost.cancelled() => Err(self.link.is_lost()),
            heard = self.heard.recv() => match heard {
                Some(heard) => Ok(heard),
                // The connection is being closed, and will say so itself.
                None if self.stop.is_cancelled() => {
                    self.link.lost.cancelled().await;
                    Err(self.link.is_lost())
                }
                None => Err(Error::new(ErrorKind::Connection, "nothing is heard at filesystem:// any more")),
            },
        }
    }

    async fn close(mut self: Box<Self>) -> Result<()> {
        self.stop.cancel();
        if let Some(ended) = self.ended.take() {
            let _ = ended.await;
        }
        Ok(())
    }
}

impl Drop for FilesystemSubscription {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn run(
    link: &Arc<Link>,
    listener: &Arc<Listener>,
    heard: mpsc::UnboundedSender<Broadcast>,
    stop: &CancellationToken,
) {
    let mut changes = link.waiting.changes();
    link.look.notify_one();
    loop {
        changes.borrow_and_update();
        let own = Arc::clone(listener);
        let Ok(broadcasts) = spawn_blocking(move || own.hear()).await else { return };
        if broadcasts.into_iter().any(|broadcast| heard.send(broadcast).is_err()) {
            return;
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = changes.changed() => {}
        }
    }
}

struct Listener {
    link: Arc<Link>,
    exchange: String,
    binding: Binding,
}

impl Listener {
    /// Empties the queue of what came while nobody listened, and binds it; says where that is recorded, for who finds us
    /// dead.
    fn begin(&self) -> Result<PathBuf> {
        let shared = &self.link.shared;
        let record = records::write(&*shared.incoming.own()?, &self.exchange, &self.binding)?;
        records::empty(&shared.incoming, &self.binding.queue);
        self.link.kept.bind(&shared.options.control_folder, &self.exchange, &self.binding)?;
        Ok(record)
    }

    fn end(&self, record: &Path) {
        let shared = &self.link.shared;
        self.link.kept.forget(&self.exchange, &self.binding);
        records::undo(&shared.incoming, &shared.options.control_folder, record);
        let _ = remove(record);
    }

    fn hear(&self) -> Vec<Broadcast> {
        let shared = &self.link.shared;
        let names = self.link.waiting.all_of(&self.binding.queue);
        let whole = names.into_iter().filter_map(|name| {
            let path = shared.incoming.file(&name);
            let raw = match read_all(&mut open_message(&self.link, &name)?) {
                Ok(raw) => raw,
                Err(error) => {
                    set_aside(&self.link, &name, &path, &error.to_string());
                    return None;
                }
            };
            // Another of the same name may listen: one of us hears it.
            remove(&path).ok().filter(|removed| *removed)?;
            Some(envelope::parse(&raw).map_err(|error| Undecodable { reason: error.to_string(), raw: raw.into() }))
        });
        whole.collect()
    }
}
