//! [`PythonStore`]: entries and last runs that are kept by an object in Python.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use celeriac::Entry;
use celeriac::beat::{Changed, Kept, Run, Sending, Store};
use celeriac::schedule::Starting;
use celeriac::{Error, ErrorKind, Result};
use pyo3::prelude::*;

use super::beat::{entry_of, instant};
use super::settings::raised;

/// A store of Python's (`celeriac.stores.STORES`): it has the entries, too, and several beats may work on what it keeps.
pub(super) struct PythonStore {
    store: Arc<Py<PyAny>>,
    /// What is asked about schedules that only Python knows.
    beating: Arc<Py<PyAny>>,
    max_interval: Duration,
}

impl PythonStore {
    /// The store, unless it is `None`.
    pub(super) fn of(store: &Bound<'_, PyAny>, beating: &Arc<Py<PyAny>>) -> PyResult<Option<Box<dyn Store>>> {
        if store.is_none() {
            return Ok(None);
        }
        let max_interval = Duration::from_secs_f64(store.getattr("max_interval")?.extract::<f64>()?.max(0.0));
        let (store, beating) = (Arc::new(store.clone().unbind()), Arc::clone(beating));
        Ok(Some(Box::new(PythonStore { store, beating, max_interval })))
    }

    /// Asks it on a thread that may block.
    async fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Bound<'_, PyAny>, &Arc<Py<PyAny>>) -> PyResult<T> + Send + 'static,
    ) -> Result<T> {
        let (store, beating) = (Arc::clone(&self.store), Arc::clone(&self.beating));
        let asked = tokio::task::spawn_blocking(move || Python::attach(|py| ask(store.bind(py), &beating)));
        let answer = asked.await.map_err(|error| Error::new(ErrorKind::Io, "ask beat's store").with_source(error))?;
        answer.map_err(|error| raised(&error))
    }
}

#[async_trait]
impl Store for PythonStore {
    async fn load(&mut self) -> Result<Kept> {
        Ok(Kept::new())
    }

    /// The end: each run was kept when it was claimed.
    async fn save(&mut self, _: &Kept) -> Result<()> {
        self.ask(|store, _| store.call_method0("close").map(drop)).await
    }

    async fn claim(&mut self, sending: &Sending, _: &Kept) -> bool {
        let (name, now) = (sending.name.clone(), sending.run.last_run_at.as_microsecond());
        let claimed = self.ask(move |store, _| store.call_method1("claim", (name, now))?.extract()).await;
        claimed.unwrap_or_else(|error| {
            tracing::error!("beat: Cannot keep that {} was sent: {error}", sending.name);
            false
        })
    }

    async fn changed(&mut self, _: &[Entry]) -> Result<Option<Changed>> {
        self.ask(|store, beating| {
            let told = store.call_method0("changed")?;
            if told.is_none() {
                return Ok(None);
            }
            let mut changed = Changed::default();
            for row in told.try_iter()? {
                let row = row?;
                match row_of(&row, beating) {
                    Ok((entry, run)) => {
                        changed.1.insert(entry.name.clone(), run);
                        changed.0.push(entry);
                    }
                    // It hinders no other.
                    Err(error) => tracing::error!("beat: An entry is left out: {error}; it is {row}"),
                }
            }
            Ok(Some(changed))
        })
        .await
    }

    fn max_interval(&self) -> Duration {
        self.max_interval
    }
}

/// An entry, its last run, how often it ran, and from when on it may be due.
type Told<'py> = (Bound<'py, PyAny>, i64, u64, Option<i64>);

fn row_of(told: &Bound<'_, PyAny>, beating: &Arc<Py<PyAny>>) -> PyResult<(Entry, Run)> {
    let (entry, last_run_at, total_run_count, start): Told<'_> = told.extract()?;
    let mut entry = entry_of(&entry, beating)?;
    if let Some(start) = start {
        entry.schedule = Starting { schedule: entry.schedule, start_time: instant(start)? }.into();
    }
    Ok((entry, Run { last_run_at: instant(last_run_at)?, total_run_count }))
}
