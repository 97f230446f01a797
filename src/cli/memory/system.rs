//! What takes `unsafe`: nothing else in the core does (`tests/tidy.rs`).

use super::mappings::Unchanged;

/// Forgets the pages of a mapping; they are read from its file again when they are next touched.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "no safe interface tells the system which pages are not needed")]
pub(super) fn forget(unchanged: &Unchanged) {
    use rustix::mm::{Advice, madvise};

    let range = unchanged.range();
    let start = std::ptr::with_exposed_provenance_mut(range.start);
    // SAFETY: with this advice the pages of a private mapping of a file are read from the file again, and what was written
    // to them since is lost (madvise(2)). Nothing was, and nobody can: that is what an `Unchanged` is.
    let forgotten = unsafe { madvise(start, range.len(), Advice::LinuxDontNeed) };
    // Where it is refused, as for memory that was locked, the pages stay.
    let _ = forgotten;
}

#[cfg(not(target_os = "linux"))]
pub(super) fn forget(_: &Unchanged) {}

/// Has the allocator give back what it keeps of freed memory.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "no safe interface has glibc give back what it keeps")]
pub(super) fn trim_heap() {
    // SAFETY: it may be called at any time and by any thread (malloc_trim(3)).
    unsafe { nix::libc::malloc_trim(0) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(super) fn trim_heap() {}
