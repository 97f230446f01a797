//! [`entries`]: the periodic tasks that the settings name.

use toml::Table;

use super::entry::Entry;
use crate::config::{Config, PeriodicTask, ScheduleDefinition};
use crate::protocol::{Map, Signature, to_value};
use crate::schedule::{Cronspec, Crontab, Event, Fields, Interval, Schedule, Solar};
use crate::{Error, ErrorKind, Result};

/// What `beat_schedule` names.
///
/// # Errors
/// `Configuration`: what stands for a schedule is none; the message names the entry.
pub(super) fn entries(config: &Config) -> Result<Vec<Entry>> {
    config.beat_schedule.iter().map(entry).collect()
}

fn entry(given: &PeriodicTask) -> Result<Entry> {
    let schedule = schedule(&given.schedule).map_err(|error| {
        let key = format!("read beat_schedule.{}.schedule", given.name);
        Error::new(ErrorKind::Configuration, key).with_source(error)
    })?;
    let signature = Signature {
        task: given.task.clone(),
        args: to_value(&given.args)?.into_list().unwrap_or_default(),
        kwargs: map(&given.kwargs)?,
        options: map(&given.options)?,
        ..Signature::default()
    };
    Ok(Entry::new(given.name.clone(), schedule, signature))
}

fn map(table: &Table) -> Result<Map> {
    Ok(to_value(table)?.into_map().unwrap_or_default())
}

fn schedule(given: &ScheduleDefinition) -> Result<Schedule> {
    Ok(match given {
        ScheduleDefinition::Interval { seconds, relative } => {
            Interval { relative: *relative, ..Interval::from_seconds(*seconds)? }.into()
        }
        ScheduleDefinition::CrontabText(text) => Crontab::parse(text)?.into(),
        ScheduleDefinition::Crontab(fields) => Crontab::new(Fields {
            minute: cronspec(fields, "minute"),
            hour: cronspec(fields, "hour"),
            day_of_week: cronspec(fields, "day_of_week"),
            day_of_month: cronspec(fields, "day_of_month"),
            month_of_year: cronspec(fields, "month_of_year"),
        })?
        .into(),
        ScheduleDefinition::Solar { event, latitude, longitude } => {
            Solar::new(Event::named(event)?, *latitude, *longitude)?.into()
        }
    })
}

fn cronspec(fields: &Table, name: &str) -> Cronspec {
    match fields.get(name) {
        Some(toml::Value::Integer(number)) => (*number).into(),
        Some(toml::Value::String(text)) => text.as_str().into(),
        Some(toml::Value::Array(numbers)) => {
            numbers.iter().filter_map(toml::Value::as_integer).collect::<Vec<_>>().into()
        }
        _ => Cronspec::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::App;

    fn app(toml: &str) -> App {
        let mut app = App::new("shop").beat_schedule([Entry::new(
            "nightly",
            Interval::from_seconds(1.0).unwrap(),
            Signature::new("of the program"),
        )]);
        app.config_mut().merge_toml(toml, "test.toml").unwrap();
        app
    }

    #[test]
    fn the_settings_stand_over_the_program() {
        let toml = "[beat_schedule]\n\
                    nightly = { task = 't', schedule = { crontab = { minute = 30, hour = [4] } }, args = [1, 'a'] }\n\
                    tick = { task = 'u', schedule = 2.5, kwargs = { x = { y = true } }, options = { queue = 'q' } }";
        let expected = [
            Entry::new("nightly", Crontab::parse("30 4 * * *").unwrap(), Signature::new("t").arg(1).arg("a")),
            Entry::new(
                "tick",
                Interval::from_seconds(2.5).unwrap(),
                Signature::new("u").kwarg("x", Map::from([("y", true)])).queue("q"),
            ),
        ];
        assert_eq!(app(toml).periodic_tasks().unwrap(), expected);
        assert_eq!(app("").periodic_tasks().unwrap()[0].signature.task, "of the program");
    }

    #[test]
    fn a_schedule_that_is_none_is_named_with_its_entry() {
        let rows = [
            ("{ crontab = '61 * * * *' }", "61"),
            ("{ crontab = { hour = 24 } }", "24"),
            ("{ crontab = '* * *' }", "* * *"),
            ("{ solar = { event = 'noon', lat = 1, lon = 1 } }", "noon"),
            ("{ solar = { event = 'sunset', lat = 91, lon = 1 } }", "latitude"),
        ];
        for (schedule, expected) in rows {
            let app = app(&format!("[beat_schedule.b]\ntask = 't'\nschedule = {schedule}"));
            let error = app.periodic_tasks().unwrap_err().to_string();
            assert!(error.starts_with("read beat_schedule.b.schedule: ") && error.contains(expected), "{error}");
        }
    }
}
