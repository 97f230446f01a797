//! Opening a message. What can never be read is put out of the way, so that it is met once.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::connection::Link;
use super::files::{move_to, open_whole};
use super::names::FileName;
use super::own::HIDDEN;

/// `None`: it is not whole yet, or gone, or cannot be read, which is said.
pub(super) fn open(link: &Link, name: &FileName) -> Option<File> {
    let path = link.shared.incoming.file(name);
    match open_whole(&path, &link.shared.clock) {
        Ok(opened) => opened,
        // A folder, a pipe or a socket, whatever its name.
        Err(_) if fs::metadata(&path).is_ok_and(|found| !found.is_file()) => {
            set_aside(link, name, &path, "it is no file");
            None
        }
        // Others may be allowed to read it.
        Err(error) => {
            link.complaints.warn(format!("cannot read the message {}: {error}", path.display()));
            None
        }
    }
}

/// Takes a message out of its queue that nobody can read, from where it is now.
pub(super) fn set_aside(link: &Link, name: &FileName, from: &Path, why: &str) {
    let folder = &link.shared.incoming;
    let aside = folder.path().join(HIDDEN).join("unreadable");
    let moved: io::Result<bool> = fs::create_dir_all(&aside).and_then(|()| move_to(from, &aside.join(name.as_str())));
    let message = folder.file(name);
    match moved {
        Ok(true) => tracing::warn!("the message {} is put into {}: {why}", message.display(), aside.display()),
        Ok(false) => {}
        Err(error) => link.complaints.warn(format!("cannot read the message {}: {why}; {error}", message.display())),
    }
}
