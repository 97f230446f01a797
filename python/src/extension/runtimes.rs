//! [`Runtimes`]: the Tokio runtime of handlers that Python calls, one for each process.

use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use tokio::runtime::{Builder, Handle};

/// The runtime of this process, made when the first handler is called. It is kept until the process ends: what a handler
/// has begun, a pool of connections, lives from one call to the next.
#[derive(Debug, Default)]
pub(super) struct Runtimes(Mutex<Option<(u32, Handle)>>);

impl Runtimes {
    /// A process that was forked has none of its parent's threads, and gets a runtime of its own. For who holds the GIL: no
    /// process is forked meanwhile, so that the lock is free in all of them.
    pub(super) fn here(&self, _: Python<'_>) -> PyResult<Handle> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let process = std::process::id();
        if let Some((of, handle)) = &*known
            && *of == process
        {
            return Ok(handle.clone());
        }
        // Whoever waits for a handler polls it; the thread is for what the handler waits for, and has spawned.
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let handle = Box::leak(Box::new(runtime)).handle().clone();
        *known = Some((process, handle.clone()));
        Ok(handle)
    }
}
