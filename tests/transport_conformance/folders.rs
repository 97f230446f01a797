//! What folders promise beside what every transport does: the dead are cleaned up after, and what others break is mended.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use celeriac::time::Clock;
use celeriac::transport::{
    ExchangeType, FilesystemOptions, FilesystemTransport, Note, Prefetch, Publication, Queue, Subscription, Transport,
};

use rustix::fs::{FlockOperation, flock};
use tokio::runtime::Handle;

use crate::harness::{consume, message, names, send, take};
use crate::support::eventually;

/// Who is dead: the lock in its name is open.
const DEAD: &str = "5a1c8f1d0c7e4f6d8b8f7a6f0d6c1b2a";

struct Folders(tempfile::TempDir);

impl Folders {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("in")).unwrap();
        fs::create_dir(folder.path().join("out")).unwrap();
        Folders(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn options(&self) -> FilesystemOptions {
        FilesystemOptions {
            data_folder_in: self.path("in"),
            data_folder_out: self.path("in"),
            processed_folder: self.path("processed"),
            control_folder: self.path("control"),
            polling_interval: Duration::from_millis(20),
            ..FilesystemOptions::default()
        }
    }

    fn transport(&self) -> Arc<dyn Transport> {
        Arc::new(FilesystemTransport::new(self.options(), Clock::system()))
    }

    /// One that looks for the dead as it connects, and not again.
    fn blind(&self) -> Arc<dyn Transport> {
        let options = FilesystemOptions { polling_interval: Duration::from_secs(3600), ..self.options() };
        Arc::new(FilesystemTransport::new(options, Clock::system()))
    }

    /// Has a process die that has left a file where it kept what it had claimed.
    fn dead(&self, data: &str, name: &str, content: &[u8]) -> PathBuf {
        let hidden = self.path(data).join(".celeriac");
        let (own, lock) = (hidden.join(DEAD), self.path("lock"));
        fs::create_dir_all(&hidden).unwrap();
        // It lives, to all who look, until all of it is there.
        let life = File::create(&lock).unwrap();
        flock(&life, FlockOperation::NonBlockingLockExclusive).unwrap();
        fs::rename(lock, hidden.join(format!("{DEAD}.lock"))).unwrap();
        fs::create_dir(&own).unwrap();
        fs::write(own.join(name), content).unwrap();
        own.join(name)
    }

    /// The record of the only binding that somebody listens by.
    fn record(&self) -> PathBuf {
        let own = entries(&self.path("in").join(".celeriac")).into_iter().filter(|path| path.is_dir());
        let mut records = own.flat_map(|own| entries(&own)).filter(|path| path.to_string_lossy().ends_with(".binding"));
        records.next().expect("somebody listens")
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn mailbox() -> Queue {
    Queue {
        exchange: "pidbox".to_owned(),
        exchange_type: ExchangeType::Fanout,
        routing_key: String::new(),
        ..Queue::direct("w@host.pidbox")
    }
}

/// Broadcasts until it is heard.
async fn is_heard(transport: &Arc<dyn Transport>, subscription: &mut dyn Subscription) {
    let connection = transport.connect().await.unwrap();
    let to_all = || Publication { exchange: "pidbox".to_owned(), routing_key: String::new(), message: message("1") };
    let mut heard = Box::pin(subscription.next());
    for _ in 0..100 {
        connection.broadcast(vec![to_all()]).await.unwrap();
        if let Ok(next) = tokio::time::timeout(Duration::from_millis(100), &mut heard).await {
            next.unwrap().unwrap();
            return;
        }
    }
    panic!("nothing is heard");
}

#[tokio::test]
async fn who_is_started_anew_under_a_dead_ones_name_is_heard() {
    let folders = Folders::new();
    let (transport, control) = (folders.blind(), folders.path("control/pidbox.exchange"));
    let first = transport.connect().await.unwrap();
    let subscription = first.subscribe(&mailbox()).await.unwrap();
    let record = fs::read(folders.record()).unwrap();
    subscription.close().await.unwrap();
    assert!(!fs::read_to_string(&control).unwrap().contains("w@host"), "who ends is bound no more");
    first.close().await.unwrap();
    drop((first, transport));
    eventually("nobody looks", || async { Handle::current().metrics().num_alive_tasks() == 0 }).await;

    // It might have been killed in place of that: bound, and recorded.
    fs::write(&control, r#"[["", "", "w@host.pidbox"]]"#).unwrap();
    folders.dead("in", "1.binding", &record);
    let successor = folders.blind();
    let connection = successor.connect().await.unwrap();
    assert!(!folders.path("in/.celeriac").join(DEAD).exists(), "it is cleaned up after before anything else");
    let mut subscription = connection.subscribe(&mailbox()).await.unwrap();
    is_heard(&successor, &mut *subscription).await;

    // The same, found by a third while the successor listens already.
    folders.dead("in", "1.binding", &record);
    let _third = folders.blind().connect().await.unwrap();
    eventually("the dead are found", || async { !folders.path("in/.celeriac").join(DEAD).exists() }).await;
    assert!(fs::read_to_string(&control).unwrap().contains("w@host"), "another listens by that very binding");
    is_heard(&successor, &mut *subscription).await;
}

#[tokio::test]
async fn a_table_that_others_have_emptied_or_broken_is_mended() {
    let folders = Folders::new();
    let transport = folders.transport();
    let connection = transport.connect().await.unwrap();
    connection.declare(&[Queue::direct("q")]).await.unwrap();
    let mut subscription = connection.subscribe(&mailbox()).await.unwrap();
    let (queues, mailboxes) = (folders.path("control/q.exchange"), folders.path("control/pidbox.exchange"));
    let bound = fs::read(&queues).unwrap();
    for broken in ["", "[]", r#"[["q", "", "q"#, r#"{"no": "list"}"#] {
        fs::write(&queues, broken).unwrap();
        eventually("the table is mended", || async { fs::read(&queues).unwrap() == bound }).await;
    }
    fs::remove_file(&mailboxes).unwrap();
    is_heard(&transport, &mut *subscription).await;
    subscription.close().await.unwrap();
    let unbound = fs::read(&mailboxes).unwrap();
    fs::write(&queues, "").unwrap();
    eventually("the other table is mended", || async { fs::read(&queues).unwrap() == bound }).await;
    assert_eq!(fs::read(&mailboxes).unwrap(), unbound, "who has ended is not bound again");
}

#[tokio::test]
async fn what_the_dead_left_in_either_folder_is_swept() {
    let folders = Folders::new();
    let [left_in, left_out] = ["in", "out"].map(|data| folders.dead(data, "0.tmp", b"half a mess"));
    assert_eq!([left_in.exists(), left_out.exists()], [true; 2]);
    let options = FilesystemOptions { data_folder_out: folders.path("out"), ..folders.options() };
    let _connection = FilesystemTransport::new(options, Clock::system()).connect().await.unwrap();
    assert_eq!([left_in.exists(), left_out.exists()], [false; 2]);
}

#[tokio::test]
async fn what_is_no_file_is_put_aside_and_the_rest_is_delivered() {
    let folders = Folders::new();
    let name = "0_a.q.msg";
    fs::create_dir(folders.path("in").join(name)).unwrap();
    let (connection, mut consumer, _) = consume(&folders.transport(), &["q"], 10).await;
    send(&connection, "q", &["1"]).await;
    assert_eq!(names(&take(&mut *consumer, 1).await), ["1"]);
    let aside = folders.path("in/.celeriac/unreadable").join(name);
    eventually("it is put aside", || async { aside.is_dir() }).await;
    assert!(!folders.path("in").join(name).exists());
}

#[tokio::test]
async fn what_needs_no_acknowledgement_is_gone_as_it_is_taken() {
    let folders = Folders::new();
    let options = FilesystemOptions { store_processed: true, ..folders.options() };
    let transport: Arc<dyn Transport> = Arc::new(FilesystemTransport::new(options, Clock::system()));
    let connection = transport.connect().await.unwrap();
    let queue = Queue { no_ack: true, ..Queue::direct("q") };
    connection.declare(std::slice::from_ref(&queue)).await.unwrap();
    let mut consumer = connection.consume(&[queue], Prefetch::new(1)).await.unwrap();
    send(&connection, "q", &["1", "2"]).await;
    let first = take(&mut *consumer, 1).await;
    let processed = || entries(&folders.path("processed")).len();
    assert_eq!(processed(), 1, "it is done with while it is out");
    // Given back, it stays where it is: the next that comes is another.
    drop(first);
    assert_eq!(names(&take(&mut *consumer, 1).await), ["2"]);
    assert_eq!(processed(), 2);
}

#[tokio::test]
async fn expired_notes_are_swept() {
    let folders = Folders::new();
    let clock = Clock::manual("2026-11-28T12:00:00Z".parse().unwrap());
    let transport = FilesystemTransport::new(folders.options(), clock.clone());
    let connection = transport.connect().await.unwrap();
    let note = |name: &str| Note { name: name.to_owned(), text: Some("text".to_owned()) };
    connection.write_notes(vec![note("brief")], Duration::from_secs(60)).await.unwrap();
    connection.write_notes(vec![note("long")], Duration::from_secs(3600)).await.unwrap();
    connection.write_notes(vec![note("for ever")], Duration::MAX).await.unwrap();
    let kept = || entries(&folders.path("in/.celeriac/notes")).len();
    assert_eq!(kept(), 3);
    clock.advance(Duration::from_secs(61));
    // Each connection sweeps as it begins, and from then on now and then.
    let _other = transport.connect().await.unwrap();
    eventually("the expired note is swept", || async { kept() == 2 }).await;
    let all = ["brief", "long", "for ever"].map(str::to_owned);
    let text = || Some("text".to_owned());
    assert_eq!(connection.notes(&all).await.unwrap(), [None, text(), text()]);
}
