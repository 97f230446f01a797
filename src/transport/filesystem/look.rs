//! The look through the folders: who has died, what others have lost of our bindings, what has expired, what waits.

use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::connection::Link;
use super::files::failed;
use super::names::FileName;
use super::own::recover;
use super::{Shared, notes};
use crate::Result;

/// Looks, once. `sweep`: at what has expired, too.
pub(super) async fn look(link: &Arc<Link>, sweep: bool) {
    let own = Arc::clone(link);
    match spawn_blocking(move || through(&own, sweep)).await {
        Ok(Ok(names)) => link.waiting.replace(names),
        Ok(Err(error)) if error.is_connection() => link.lose(&error),
        Ok(Err(error)) => link.complaints.warn(error.to_string()),
        // Only a runtime that ends gives up what runs.
        Err(_) => {}
    }
}

fn through(link: &Link, sweep: bool) -> Result<Vec<FileName>> {
    let (shared, folder) = (&link.shared, &link.shared.incoming);
    folder.check()?;
    folder.check_own()?;
    after_the_dead(link);
    if let Err(error) = link.kept.restore(&shared.options.control_folder) {
        link.complaints.warn(error.to_string());
    }
    if sweep && let Err(error) = notes::sweep(shared) {
        link.complaints.warn(format!("cannot remove expired notes in {}: {error}", folder.path().display()));
    }
    folder.names().map_err(|error| failed("cannot read the folder", folder.path(), error))
}

/// Gives back what dead processes held, and removes what they have left.
pub(super) fn after_the_dead(link: &Link) {
    let Shared { incoming, outgoing, options, .. } = &*link.shared;
    let folders = [Some(incoming), (!Arc::ptr_eq(incoming, outgoing)).then_some(outgoing)];
    for folder in folders.into_iter().flatten() {
        match recover(folder, &options.control_folder) {
            Ok(0) => {}
            Ok(count) => tracing::info!("gave back {count} message(s) of workers that have died"),
            Err(error) => {
                let folder = folder.path().display();
                link.complaints.warn(format!("cannot give back what dead workers held in {folder}: {error}"));
            }
        }
    }
}
