//! Folders as the broker, with the files of kombu/transport/filesystem.py, so that stock workers and producers share them
//! with us.
//!
//! [`FilesystemTransport`] owns what outlives a connection: the `Ledger` of claimed messages and of settlements still to be
//! carried out. A stock worker removes a message when it reads it, and loses it when it dies; here it is claimed by a rename
//! into a folder of the process's own (`own`), which its successors give back, and each later step (`settle`) is one rename,
//! too: whoever is killed between two has lost nothing. The folder is watched (`watch`), so that a message is taken as it
//! comes.
//!
//! Nothing is forced to the disk (`fsync`), as Kombu forces nothing: what a killed process wrote is the system's to keep, and
//! a power cut may cost the last seconds, which would cost each message milliseconds to prevent. Where that matters a
//! server is the broker.
//!
//! Messages have no priorities here (Kombu: "Supports Priority: No"): they come in the order of their names.

mod browse;
mod complaints;
mod connection;
mod consumer;
mod files;
mod ledger;
mod listen;
mod look;
mod names;
mod notes;
mod open;
mod options;
mod own;
mod publish;
mod records;
mod settle;
mod tables;
mod waiting;
mod watch;

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio_util::task::AbortOnDropHandle;

use super::{Capabilities, Connection, ExchangeType, Queue, Transport};
use crate::Result;
use crate::time::Clock;
use connection::FilesystemConnection;
use ledger::Ledger;
use names::Namer;
pub use options::FilesystemOptions;
use own::Folder;

/// Folders as the broker.
pub struct FilesystemTransport {
    shared: Arc<Shared>,
}

/// What all connections of a transport share.
struct Shared {
    options: FilesystemOptions,
    clock: Clock,
    /// Where messages are read from.
    incoming: Arc<Folder>,
    /// Where they are published into: mostly the same.
    outgoing: Arc<Folder>,
    namer: Namer,
    ledger: Arc<Ledger>,
    /// The exchanges that were declared as fanout ones: their tables do not say so.
    fanouts: Mutex<HashSet<String>>,
    /// Carries out what is settled.
    settling: Mutex<Option<AbortOnDropHandle<()>>>,
}

impl FilesystemTransport {
    /// A transport to the folders of `options`. `clock` gives the times in the files' names.
    pub fn new(options: FilesystemOptions, clock: Clock) -> Self {
        let incoming = Arc::new(Folder::new(&options.data_folder_in, "data_folder_in"));
        let outgoing = match options.data_folder_in == options.data_folder_out {
            true => Arc::clone(&incoming),
            false => Arc::new(Folder::new(&options.data_folder_out, "data_folder_out")),
        };
        let shared = Shared {
            incoming,
            outgoing,
            namer: Namer::new(clock.clone()),
            ledger: Arc::default(),
            fanouts: Mutex::default(),
            settling: Mutex::default(),
            options,
            clock,
        };
        FilesystemTransport { shared: Arc::new(shared) }
    }
}

#[async_trait]
impl Transport for FilesystemTransport {
    fn uri(&self) -> String {
        "filesystem://localhost//".to_owned()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            heeds_priorities: false,
            lowest_priority_first: false,
            redelivers_by_timeout: false,
            settles_across_connections: true,
            keeps_place_of_origin: true,
            requeues_to_the_end: true,
            browses_in_place: true,
            sends_ahead: false,
            delays_natively: false,
            has_neighbours: false,
            retries_refused_logins: true,
        }
    }

    async fn connect(&self) -> Result<Arc<dyn Connection>> {
        let connection = FilesystemConnection::open(Arc::clone(&self.shared)).await?;
        self.shared.settle();
        Ok(Arc::new(connection))
    }
}

impl Shared {
    /// Begins to carry out settlements, unless that goes on already.
    fn settle(self: &Arc<Self>) {
        let mut settling = self.settling.lock().unwrap_or_else(PoisonError::into_inner);
        if settling.as_ref().is_none_or(|running| running.is_finished()) {
            let running = tokio::spawn(ledger::run(Arc::clone(&self.ledger), Arc::downgrade(self)));
            *settling = Some(AbortOnDropHandle::new(running));
        }
    }

    fn know(&self, queue: &Queue) {
        if queue.exchange_type == ExchangeType::Fanout {
            self.fanouts.lock().unwrap_or_else(PoisonError::into_inner).insert(queue.exchange.clone());
        }
    }

    fn is_fanout(&self, exchange: &str) -> bool {
        self.fanouts.lock().unwrap_or_else(PoisonError::into_inner).contains(exchange)
    }

    /// Lets the own folders go.
    fn release(&self) {
        self.incoming.release();
        self.outgoing.release();
    }
}

impl fmt::Debug for FilesystemTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FilesystemTransport({})", self.shared.incoming.path().display())
    }
}
