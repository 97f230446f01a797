//! The watch over the folder: inotify tells of messages as they come, and of the folder's end. Beneath it the folder is
//! looked through each `polling_interval`, for what the system does not tell of (a network's filesystem) or told too much of.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::connection::Link;
use super::look::look;
use super::names::FileName;
use crate::{Error, ErrorKind};

/// How often the folder is looked through where the system tells nothing at all.
const WITHOUT_NOTICE: Duration = Duration::from_millis(200);

/// How often what has expired is removed.
const SWEEP: Duration = Duration::from_secs(60);

/// What the system told.
enum Told {
    Names(Vec<FileName>),
    /// It cannot say all that there was.
    Look,
    /// The folder was removed or moved. Another of its name is another broker.
    Gone,
}

/// Watches until the connection is lost, which it may notice itself.
pub(super) async fn run(link: Arc<Link>, mut notices: Option<Notices>) {
    let polling = link.shared.options.polling_interval;
    let pause = if notices.is_some() { polling } else { polling.min(WITHOUT_NOTICE) };
    let mut next = Instant::now();
    let mut sweep = next;
    loop {
        let told = tokio::select! {
            biased;
            () = link.lost.cancelled() => return,
            told = told(&mut notices) => told,
            () = sleep_until(next) => Told::Look,
            () = link.look.notified() => Told::Look,
        };
        match told {
            Told::Names(names) => link.waiting.add(names),
            Told::Gone => {
                let folder = link.shared.incoming.path().display();
                let message = format!("the connection to filesystem:// was lost: the folder {folder} was removed");
                return link.lose(&Error::new(ErrorKind::Connection, message));
            }
            Told::Look => {
                let now = Instant::now();
                let is_due = now >= sweep;
                look(&link, is_due).await;
                if is_due {
                    sweep = now + SWEEP;
                }
                next = Instant::now() + pause;
            }
        }
    }
}

async fn told(notices: &mut Option<Notices>) -> Told {
    match notices {
        Some(watching) => match watching.next().await {
            Ok(told) => told,
            Err(error) => {
                tracing::warn!(
                    "the system tells no more of the broker's folder, which is looked through instead: {error}"
                );
                *notices = None;
                Told::Look
            }
        },
        None => std::future::pending().await,
    }
}

#[cfg(target_os = "linux")]
pub(super) use linux::Notices;
#[cfg(not(target_os = "linux"))]
pub(super) use nothing::Notices;

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::mem::MaybeUninit;
    use std::os::fd::OwnedFd;
    use std::path::Path;

    use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init};
    use rustix::io::Errno;
    use tokio::io::unix::AsyncFd;

    use super::Told;
    use crate::transport::filesystem::names::FileName;
    use crate::transport::filesystem::own::HIDDEN;

    /// What inotify tells of one folder.
    pub(crate) struct Notices(AsyncFd<OwnedFd>);

    impl Notices {
        pub(crate) fn of(folder: &Path) -> io::Result<Self> {
            let told = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
            // Kombu writes in place and closes; we move in. What is opened and not closed is not whole yet.
            let messages = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO;
            // Some filesystems tell of a folder's end late or never, but of what is deleted in it.
            let end = WatchFlags::DELETE | WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF | WatchFlags::ONLYDIR;
            add_watch(&told, folder, messages | end)?;
            #[expect(deprecated, reason = "its successor is unsafe, and a descriptor that is owned stays open")]
            let told = AsyncFd::new(told)?;
            Ok(Notices(told))
        }

        pub(super) async fn next(&mut self) -> io::Result<Told> {
            loop {
                let mut ready = self.0.readable().await?;
                let told = read(ready.get_inner())?;
                ready.clear_ready();
                match told {
                    Told::Names(names) if names.is_empty() => {}
                    told => return Ok(told),
                }
            }
        }
    }

    /// All that there is to read.
    fn read(from: &OwnedFd) -> io::Result<Told> {
        let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
        let mut reader = Reader::new(from, &mut buffer);
        let (mut names, mut look) = (Vec::new(), false);
        loop {
            match reader.next() {
                Ok(event) => {
                    let messages = ReadFlags::CLOSE_WRITE | ReadFlags::MOVED_TO;
                    if event.events().intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF) {
                        return Ok(Told::Gone);
                    }
                    let name = event.file_name().and_then(|name| name.to_str().ok()).unwrap_or_default();
                    if event.events().contains(ReadFlags::DELETE) {
                        look |= name == HIDDEN;
                        continue;
                    }
                    look |= !event.events().intersects(messages);
                    names.extend(FileName::parse(name));
                }
                Err(Errno::WOULDBLOCK) => return Ok(if look { Told::Look } else { Told::Names(names) }),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod nothing {
    use std::io;
    use std::path::Path;

    use super::Told;

    /// There are none on this system.
    pub(crate) struct Notices(std::convert::Infallible);

    impl Notices {
        pub(crate) fn of(_: &Path) -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(super) async fn next(&mut self) -> io::Result<Told> {
            match self.0 {}
        }
    }
}
