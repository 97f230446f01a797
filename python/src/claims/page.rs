//! [`Page`]: a number in memory that two processes share. What takes `unsafe` in the plain part of the pool
//! (`tests/tidy.rs`).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::AtomicU64;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// As much as is mapped, of which the first eight bytes are used.
const SIZE: usize = size_of::<AtomicU64>();

/// A number that is zero at first, in memory that whoever has its file maps too.
#[derive(Debug)]
pub(super) struct Page(NonNull<AtomicU64>);

// SAFETY: it is a reference to an atomic number, whichever thread has it.
#[expect(unsafe_code, reason = "a pointer says nothing of threads")]
unsafe impl Send for Page {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "a pointer says nothing of threads")]
unsafe impl Sync for Page {}

impl Page {
    /// With the file that [`Page::of`] maps, which nobody else finds.
    pub(super) fn new() -> io::Result<(Self, OwnedFd)> {
        let file = file()?;
        file.set_len(SIZE as u64)?;
        Ok((Page::map(&file)?, file.into()))
    }

    /// The number in another process's file.
    pub(super) fn of(file: OwnedFd) -> io::Result<Self> {
        let file = File::from(file);
        // To touch memory beyond the end of a file would end this process.
        if file.metadata()?.len() != SIZE as u64 {
            return Err(io::Error::other("no file of claims"));
        }
        Page::map(&file)
    }

    #[expect(unsafe_code, reason = "no safe interface maps memory that is shared")]
    fn map(file: &File) -> io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses where, so that nothing is mapped over.
        let address = unsafe { mmap(null_mut(), SIZE, access, MapFlags::SHARED, file.as_fd(), 0)? };
        NonNull::new(address.cast()).map(Page).ok_or_else(|| io::Error::other("mapped at no address"))
    }

    /// The number.
    #[expect(unsafe_code, reason = "a pointer says nothing of what it points at")]
    pub(super) fn number(&self) -> &AtomicU64 {
        // SAFETY: the mapping begins at a page, is there until `self` is dropped, and holds all bytes of the number: the
        // file has its size from before it was first mapped, and nobody has it for longer than it takes to map it.
        // Whatever bytes are in it are a number, and both sides change it as one.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Page {
    #[expect(unsafe_code, reason = "what was mapped is unmapped")]
    fn drop(&mut self) {
        // SAFETY: `self` has mapped it, and references to the number end with it.
        let unmapped = unsafe { munmap(self.0.as_ptr().cast(), SIZE) };
        // What cannot be unmapped stays, and harms nobody.
        let _ = unmapped;
    }
}

/// A file without a name.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn file() -> io::Result<File> {
    use rustix::fs::{MemfdFlags, memfd_create};

    Ok(memfd_create("celeriac-claims", MemfdFlags::CLOEXEC)?.into())
}

/// A file that has lost its name.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn file() -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;

    let path = std::env::temp_dir().join(format!("celeriac-{}", uuid::Uuid::new_v4()));
    let file = std::fs::OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}
