//! Beat, as far as Python has a part in it: it has the entries, knows some schedules, and sends.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use celeriac::Entry;
use celeriac::beat::{Kept, Run, Sender};
use celeriac::cli::{BeatStart, Beating, Hosted};
use celeriac::protocol::{Map, Signature, Value, json};
use celeriac::schedule::{Ask, Asked, Clocked, Cronspec, Crontab, Due, Event, Fields, Interval, Schedule, Solar};
use celeriac::time::zone;
use celeriac::{Error, ErrorKind, Result};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use pyo3::exceptions::{PyConnectionError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::beat_store::PythonStore;
use super::settings::raised;
use super::values::value_of;

/// Under which name a signature says whose entry it is: what Python has of an entry may be more than a signature can hold.
const ENTRY: &str = "beat_entry";

/// Whether Rust has a store of that name.
#[pyfunction]
pub(super) fn is_known_store(name: &str) -> bool {
    celeriac::beat::is_known(name)
}

/// Has Python say what is to be sent (`celeriac.beat.Beating`), or run a beat of its own.
pub(super) fn begin(py: Python<'_>, begin: &Py<PyAny>, start: &BeatStart) -> PyResult<Hosted> {
    let told = PyDict::new(py);
    told.set_item("scheduler", &start.scheduler)?;
    told.set_item("schedule_filename", &start.schedule_filename)?;
    told.set_item("max_interval", start.max_interval.map(|interval| interval.as_secs_f64()))?;
    told.set_item("loglevel", start.loglevel.name())?;
    told.set_item("logfile", start.logfile.as_ref().map(|file| file.to_string_lossy().into_owned()))?;
    told.set_item("pidfile", &start.pidfile)?;
    told.set_item("no_color", start.no_color)?;
    told.set_item("quiet", start.quiet)?;
    told.set_item("dry_run", start.dry_run)?;
    let begun = begin.bind(py).call((), Some(&told))?;
    if let Ok(code) = begun.extract::<u8>() {
        return Ok(Hosted::Ended(code));
    }
    let beating: Arc<Py<PyAny>> = Arc::new(begun.clone().unbind());
    let mut entries = Vec::new();
    for told in begun.call_method0("entries")?.try_iter()? {
        let told = told?;
        match entry_of(&told, &beating) {
            Ok(entry) => entries.push(entry),
            // It hinders no other. Rust's log is not there yet, and Python's is.
            Err(error) => begun.call_method1("leave_out", (told, error.value(py))).map(drop)?,
        }
    }
    let scheduler = begun.getattr("scheduler")?.extract()?;
    let store = PythonStore::of(&begun.getattr("store")?, &beating)?;
    let kept = begun.call_method0("kept")?.extract::<Option<Vec<ToldRun>>>()?;
    let kept = kept.map(|runs| runs.into_iter().map(run_of).collect::<PyResult<Kept>>()).transpose()?;
    let sender = Box::new(PythonSender(beating));
    Ok(Hosted::Beats(Beating { entries, sender, store, scheduler: Some(scheduler), kept }))
}

/// An entry's name, the microsecond of its last run, and how often it ran.
type ToldRun = (String, i64, u64);

fn run_of((name, last_run_at, total_run_count): ToldRun) -> PyResult<(String, Run)> {
    Ok((name, Run { last_run_at: instant(last_run_at)?, total_run_count }))
}

/// Name, schedule, task, positional and keyword arguments, options.
type Told<'py> = (String, Bound<'py, PyTuple>, String, Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>);

pub(super) fn entry_of(told: &Bound<'_, PyAny>, beating: &Arc<Py<PyAny>>) -> PyResult<Entry> {
    let (name, schedule, task, args, kwargs, options): Told<'_> = told.extract()?;
    // What only Python can hold stays there: the entry is sent by its name.
    let args = value_of(&args).ok().and_then(Value::into_list).unwrap_or_default();
    let map = |object: &Bound<'_, PyAny>| value_of(object).ok().and_then(Value::into_map).unwrap_or_default();
    let (kwargs, options) = (map(&kwargs), map(&options));
    let other = Map::from([(ENTRY, Value::from(name.as_str()))]);
    let signature = Signature { task, args, kwargs, options, other, ..Signature::default() };
    let schedule = schedule_of(&schedule, &name, beating)?;
    Ok(Entry { name, schedule, signature })
}

pub(super) fn schedule_of(told: &Bound<'_, PyTuple>, name: &str, beating: &Arc<Py<PyAny>>) -> PyResult<Schedule> {
    let refused = |error: Error| PyValueError::new_err(format!("{name}: {error}"));
    Ok(match told.get_item(0)?.extract::<String>()?.as_str() {
        "interval" => {
            let (_, microseconds, relative): (String, i64, bool) = told.extract()?;
            Interval { every: SignedDuration::from_micros(microseconds), relative }.into()
        }
        "crontab" => {
            let field = |index: usize| cronspec(&told.get_item(index)?);
            let fields = Fields {
                minute: field(1)?,
                hour: field(2)?,
                day_of_week: field(3)?,
                day_of_month: field(4)?,
                month_of_year: field(5)?,
            };
            let crontab = Crontab::new(fields).map_err(refused)?;
            match told.get_item(6) {
                Ok(zone) => crontab.in_zone(zone_of(&zone)?).into(),
                Err(_) => crontab.into(),
            }
        }
        "solar" => {
            let (_, event, latitude, longitude): (String, String, f64, f64) = told.extract()?;
            let event = Event::named(&event).map_err(refused)?;
            Solar::new(event, latitude, longitude).map_err(refused)?.into()
        }
        "clocked" => {
            let (_, microseconds): (String, i64) = told.extract()?;
            Clocked { clocked_time: instant(microseconds)? }.into()
        }
        _ => Asked(Arc::new(PythonSchedule { name: name.to_owned(), beating: Arc::clone(beating) })).into(),
    })
}

/// A zone by its name.
fn zone_of(name: &Bound<'_, PyAny>) -> PyResult<TimeZone> {
    let name: String = name.extract()?;
    zone::named(&name).ok_or_else(|| PyValueError::new_err(format!("there is no zone '{name}'")))
}

/// So many microseconds after 1970.
pub(super) fn instant(microseconds: i64) -> PyResult<Timestamp> {
    Timestamp::from_microsecond(microseconds).map_err(|error| PyValueError::new_err(error.to_string()))
}

fn cronspec(field: &Bound<'_, PyAny>) -> PyResult<Cronspec> {
    if let Ok(text) = field.extract::<String>() {
        return Ok(text.into());
    }
    if let Ok(number) = field.extract::<i64>() {
        return Ok(number.into());
    }
    let numbers = field.try_iter()?.map(|number| number?.extract()).collect::<PyResult<Vec<i64>>>()?;
    Ok(numbers.into())
}

/// A schedule of the project's own class.
struct PythonSchedule {
    name: String,
    beating: Arc<Py<PyAny>>,
}

impl Ask for PythonSchedule {
    fn is_due(&self, last_run_at: Timestamp) -> Result<Due> {
        let asked = Python::attach(|py| {
            let answer = self.beating.bind(py).call_method1("is_due", (&self.name, last_run_at.as_microsecond()))?;
            answer.extract::<(bool, Option<f64>)>()
        });
        let (is_due, next) = asked.map_err(|error| raised(&error))?;
        let next = next.map(|next| Duration::try_from_secs_f64(next.max(0.0)).unwrap_or(Duration::MAX));
        Ok(Due { is_due, next })
    }

    fn name(&self) -> String {
        "Python".to_owned()
    }
}

/// Sends as Celery's beat does, and logs as it does.
struct PythonSender(Arc<Py<PyAny>>);

#[async_trait]
impl Sender for PythonSender {
    async fn send(&mut self, mut signature: Signature) -> Result<String> {
        let beating = Arc::clone(&self.0);
        let name = signature.other.remove(ENTRY).and_then(Value::into_string);
        let Signature { task, args, kwargs, options, .. } = signature;
        let given =
            Map::from([("args", Value::List(args)), ("kwargs", Value::Map(kwargs)), ("options", Value::Map(options))]);
        let given = String::from_utf8_lossy(&json::to_vec(&Value::Map(given))?).into_owned();
        let sent = tokio::task::spawn_blocking(move || {
            Python::attach(|py| beating.bind(py).call_method1("send", (name, task, given))?.extract::<String>())
        });
        let sent = sent.await.map_err(|error| Error::new(ErrorKind::Io, "send a periodic task").with_source(error))?;
        sent.map_err(|error| match Python::attach(|py| error.is_instance_of::<PyConnectionError>(py)) {
            true => Error::new(ErrorKind::Connection, "send a periodic task").with_source(error),
            false => raised(&error),
        })
    }

    fn logs(&self) -> bool {
        true
    }
}
