//! [`stay_small`]: a worker at rest has no more memory than it needs.
//!
//! What a program has touched of its own file counts as its memory, and Linux maps what lies around it too: sixteen pages
//! for each that is touched. A start touches code all over the file, once, so that a worker at rest seemed to have eight
//! megabytes of which it needed one. What is given back is found in the page cache when it is needed again. What a load has
//! freed is kept by the allocator for the next one, which may be far.

mod mappings;
mod system;

use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::worker::{Relief, WorkerHandle};

/// After the worker is ready: first come the tasks that have waited, and within seconds what is done once for each
/// connection.
const STARTS: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(5)];

/// A load that pauses for less is not over.
const CALM: Duration = Duration::from_millis(10);

/// From one load to the next: it takes about a millisecond, and what is needed again half of one more.
const PAUSE: Duration = Duration::from_secs(1);

/// Gives back what the start needed when the worker has started, and what a load needed when that is over; for as long as
/// the worker runs. Where the system has no way to, nothing happens.
pub(super) async fn stay_small(handle: WorkerHandle) {
    handle.ready().await;
    tokio::join!(after_start(), after_loads(handle.relief()));
}

async fn after_start() {
    for pause in STARTS {
        sleep(pause).await;
        aside(give_back_pages).await;
    }
}

async fn after_loads(relief: &Relief) {
    let mut loads = 0;
    loop {
        loads = relief.after(loads, CALM).await;
        aside(give_back_all).await;
        sleep(PAUSE).await;
    }
}

/// Not on a thread that tasks wait for.
async fn aside(work: fn()) {
    // It does not panic, and is not aborted.
    let _ = spawn_blocking(work).await;
}

fn give_back_all() {
    system::trim_heap();
    give_back_pages();
}

/// Gives back what was needed of the file that this code is in: whoever leaves the rest to another file needs no more of it.
pub(super) fn give_back_pages() {
    mappings::unchanged().iter().for_each(system::forget);
}
