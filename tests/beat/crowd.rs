//! How many tasks beat sends that are due in the same second, where their runs are kept in a file: it measures, and is started
//! by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use celeriac::Result;
use celeriac::beat::{Beat, Entry, FileStore, Kept, Scheduler, Sender, Setting, Store};
use celeriac::protocol::Signature;
use celeriac::schedule::{Interval, Rules};
use celeriac::time::Clock;
use jiff::SignedDuration;
use tokio_util::sync::CancellationToken;

/// Counts what is sent.
struct Counter(Arc<AtomicUsize>);

#[celeriac::async_trait]
impl Sender for Counter {
    async fn send(&mut self, _: Signature) -> Result<String> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(String::new())
    }
}

/// A file in which each run is kept for itself.
struct OneByOne(FileStore);

#[celeriac::async_trait]
impl Store for OneByOne {
    async fn load(&mut self) -> Result<Kept> {
        self.0.load().await
    }

    async fn save(&mut self, kept: &Kept) -> Result<()> {
        self.0.save(kept).await
    }
}

/// `cargo test --test beat -- --ignored a_thousand_entries --nocapture`; the files are in `TMPDIR`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures for half a minute"]
async fn a_thousand_entries_are_due_each_second() {
    let folder = tempfile::tempdir().unwrap();
    let store = |name: &str| FileStore::new(&folder.path().join(name), Setting { timezone: None, enable_utc: true });
    let alone = sent_in_ten_seconds(OneByOne(store("alone"))).await;
    let together = sent_in_ten_seconds(store("together")).await;
    println!("of 10,000: {alone} where each run is kept for itself, {together} where they are kept together");
    assert!(together > alone, "{together} and {alone}");
}

async fn sent_in_ten_seconds(mut store: impl Store + 'static) -> usize {
    let (clock, stop, sent) = (Clock::system(), CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
    let entry = |index| {
        let schedule = Interval::new(SignedDuration::from_secs(1)).into();
        Entry { name: format!("entry {index}"), schedule, signature: Signature::new("tasks.t") }
    };
    let kept = store.load().await.unwrap();
    let entries = (0..1000).map(entry).collect();
    let scheduler = Scheduler::new(entries, kept, Rules::default(), Duration::from_secs(300), clock.now());
    let beat = tokio::spawn(Beat::new(scheduler, store, Counter(Arc::clone(&sent)), clock).run(stop.clone()));
    tokio::time::sleep(Duration::from_millis(10_500)).await;
    stop.cancel();
    beat.await.unwrap().unwrap();
    sent.load(Ordering::Relaxed)
}
