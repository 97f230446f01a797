//! [`Prefork`]: the pool of processes that run Python tasks, seen from the parent.
//!
//! [`desk`] decides who gets which call, [`child`] moves frames over one child's socket, [`nursery`] asks for children and
//! signals and hears of deaths. Nothing here knows Python: a test may be nursery and children.
//!
//! A child that is killed, or ends in the middle of a task, loses that task alone: what it had been given and had not
//! begun goes to another child. What becomes of a task that has no process any more is carried out in one that is free. A
//! nursery that is gone or does not answer ends the pool: nobody else could fork.

mod child;
mod desk;
mod job;
mod nursery;
mod pace;

use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::Arc;

use celeriac::task::{Call, CallEnd, Order, Pool};
use celeriac::{Error, ErrorKind, async_trait};
use tokio::sync::mpsc;

use desk::Desk;
pub use desk::PreforkOptions;
#[cfg(feature = "extension")]
pub(crate) use job::properties;
use job::{Job, News};

/// A pool of forked processes.
#[derive(Debug)]
pub struct Prefork {
    desk: Arc<Desk>,
}

impl Prefork {
    /// A pool whose children the process at the other end of `nursery` forks; none before the pool is started.
    pub fn new(nursery: UnixStream, options: PreforkOptions) -> Self {
        Prefork { desk: Desk::new(nursery, options) }
    }
}

impl Prefork {
    /// Has all processes replaced by those that the process at the other end of `nursery` forks, whose id may be told as in
    /// [`PreforkOptions::nursery`]. Each ends what it has been given first. For a pool that was started.
    pub fn renew(&self, nursery: UnixStream, process: Option<i32>) {
        self.desk.renew(nursery, process);
    }
}

#[async_trait]
impl Pool for Prefork {
    fn start(&self, size: usize) {
        self.desk.start(size);
    }

    fn resize(&self, size: usize) {
        self.desk.resize(size);
    }

    fn ends_runs(&self) -> bool {
        self.desk.has_processes()
    }

    fn concludes(&self) -> bool {
        true
    }

    fn places(&self) -> Option<usize> {
        Some(self.desk.places())
    }

    fn run(self: Arc<Self>, call: Call) -> Pin<Box<dyn Future<Output = CallEnd> + Send>> {
        let (news, heard) = mpsc::unbounded_channel();
        let job = Job::new(&call, news);
        let leave = Leave { desk: Arc::clone(&self.desk), number: Some(job.number) };
        self.desk.enqueue(job);
        Box::pin(see_to_its_end(call, leave, heard))
    }

    async fn failed(&self) -> Error {
        Error::new(ErrorKind::Io, self.desk.failed().await)
    }

    async fn stop(&self) {
        self.desk.stop().await;
    }
}

async fn see_to_its_end(mut call: Call, mut leave: Leave, mut heard: mpsc::UnboundedReceiver<News>) -> CallEnd {
    loop {
        let order = tokio::select! {
            biased;
            news = heard.recv() => match news {
                Some(News::Reading) => {
                    call.reading();
                    continue;
                }
                Some(News::Accepted { pid }) => {
                    call.accepted(pid);
                    continue;
                }
                Some(News::Store { meta, answer }) => {
                    let stored = call.store(meta);
                    if let Some(answer) = answer {
                        tokio::spawn(async move { answer.give(stored.await) });
                    }
                    continue;
                }
                Some(News::Ended(end)) => {
                    leave.number = None;
                    return end;
                }
                None => return CallEnd::NotBegun,
            },
            order = call.order() => order,
        };
        leave.obey(order);
    }
}

/// A call that is dropped is killed.
struct Leave {
    desk: Arc<Desk>,
    number: Option<u64>,
}

impl Leave {
    fn obey(&self, order: Order) {
        if let Some(number) = self.number {
            self.desk.obey(number, order);
        }
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.obey(Order::Kill);
    }
}
