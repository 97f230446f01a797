//! Waiting for results where nobody says that they are there: looking, at first often and then less (celery/backends/base.py
//! `SyncBackendMixin.wait_for`).

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::gathering::Gathering;
use super::{ResultBackend, Until};
use crate::Result;
use crate::protocol::TaskMeta;

/// The first pause between looks.
const FIRST: Duration = Duration::from_millis(10);

/// The longest: Celery's polling interval.
const LONGEST: Duration = Duration::from_millis(500);

/// [`ResultBackend::wait`] by looking.
pub(super) async fn wait(
    backend: &(impl ResultBackend + ?Sized),
    task_id: &str,
    timeout: Option<Duration>,
) -> Result<Option<TaskMeta>> {
    Ok(wait_many(backend, &[task_id], Until::AllReady, timeout).await?.pop().flatten())
}

/// [`ResultBackend::wait_many`] by looking. Whoever has no time at all gets what one look finds.
///
/// # Errors
/// Those of [`ResultBackend::fetch_many`]; one that can pass if the last look of all ended with it: nobody knows then what is
/// there.
pub(super) async fn wait_many(
    backend: &(impl ResultBackend + ?Sized),
    task_ids: &[&str],
    until: Until,
    timeout: Option<Duration>,
) -> Result<Vec<Option<TaskMeta>>> {
    let end = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let mut gathering = Gathering::new(task_ids, until);
    let mut pause = FIRST;
    loop {
        let missing = gathering.missing();
        let mut away = None;
        match backend.fetch_many(&missing).await {
            Ok(found) => missing.into_iter().zip(found).for_each(|(task_id, meta)| {
                meta.into_iter().for_each(|meta| gathering.take(task_id, meta));
            }),
            // It is waited for what is away, too.
            Err(error) if error.can_pass() => {
                tracing::debug!("looking for results: {error}");
                away = Some(error);
            }
            Err(error) => return Err(error),
        }
        if gathering.is_over() || !rested(pause, end).await {
            return away.map_or_else(|| Ok(gathering.finish()), Err);
        }
        pause = (pause * 2).min(LONGEST);
    }
}

/// Metas where their ids stand.
pub(super) fn in_order(task_ids: &[&str], metas: Vec<TaskMeta>) -> Vec<Option<TaskMeta>> {
    let found: HashMap<&str, &TaskMeta> = metas.iter().map(|meta| (meta.task_id.as_str(), meta)).collect();
    task_ids.iter().map(|task_id| found.get(task_id).copied().cloned()).collect()
}

/// Pauses, and no longer than there is time; `false`: there is none left.
async fn rested(pause: Duration, end: Option<Instant>) -> bool {
    let left = end.map(|end| end.saturating_duration_since(Instant::now()));
    if left == Some(Duration::ZERO) {
        return false;
    }
    sleep(left.map_or(pause, |left| pause.min(left))).await;
    true
}
