//! [`Solar`]: `solar` of `celery/schedules.py`, which asks `ephem`.
//!
//! The Sun's place is computed here (`sun.rs`) and not by a library: the crates that know it give the times of a date, and
//! what is asked is which event comes next after an instant, as `ephem` searches for it. Of 6,000 events at random places
//! between 2000 and 2050, beside those that Celery has with `ephem` 4.2:
//!
//! - up to 45° of latitude all are less than a second away; up to 60° half are less than 0.04 seconds away, 99 of 100 less
//!   than 0.3, and all less than 6;
//! - nearer to a pole, where the Sun may rise or sink slowly, 99 of 100 are less than 5 seconds away, and all less than 14.
//!   In the same places a different day for an event that begins to happen, or ceases to, is possible, and none was seen.

mod sun;

use std::f64::consts::{PI, TAU};
use std::fmt;

use jiff::{SignedDuration, Timestamp};

use self::sun::{Place, Sun, nearest};
use super::Due;
use super::fault::{self, Fault};
use super::wall;
use crate::error::Result;

/// `max_search_days`.
const LONGEST_SEARCH: usize = 366;
/// `rise_set_iterations` of `ephem`.
const STEPS: usize = 7;
/// What is nearer than this is there: a tenth of a second, in days.
const PRECISION: f64 = 0.1 / 86400.0;

/// What the Sun does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// Its centre rises to 18° below the horizon.
    DawnAstronomical,
    /// Its centre rises to 12° below the horizon.
    DawnNautical,
    /// Its centre rises to 6° below the horizon.
    DawnCivil,
    /// Its upper edge rises to 34' below the horizon, which is seen at the horizon.
    Sunrise,
    /// It passes the meridian.
    SolarNoon,
    /// Its upper edge sinks to 34' below the horizon, which is seen at the horizon.
    Sunset,
    /// Its centre sinks to 6° below the horizon.
    DuskCivil,
    /// Its centre sinks to 12° below the horizon.
    DuskNautical,
    /// Its centre sinks to 18° below the horizon.
    DuskAstronomical,
}

impl Event {
    /// All events under Celery's names, in the order of these.
    pub const ALL: [(&'static str, Event); 9] = [
        ("dawn_astronomical", Event::DawnAstronomical),
        ("dawn_civil", Event::DawnCivil),
        ("dawn_nautical", Event::DawnNautical),
        ("dusk_astronomical", Event::DuskAstronomical),
        ("dusk_civil", Event::DuskCivil),
        ("dusk_nautical", Event::DuskNautical),
        ("solar_noon", Event::SolarNoon),
        ("sunrise", Event::Sunrise),
        ("sunset", Event::Sunset),
    ];

    /// The event that Celery calls so.
    ///
    /// # Errors
    ///
    /// There is none of this name.
    pub fn named(name: &str) -> Result<Event> {
        Event::ALL.iter().find(|(known, _)| *known == name).map(|(_, event)| *event).ok_or_else(|| {
            let all = Event::ALL.map(|(name, _)| name).join(", ");
            let words = format!("Argument event \"{name}\" is invalid, must be one of {all}.");
            fault::failed("read a solar schedule", Fault::Value(words))
        })
    }

    /// Celery's name.
    pub fn name(self) -> &'static str {
        Event::ALL.iter().find(|(_, event)| *event == self).map_or("", |(name, _)| name)
    }

    /// How the horizon is crossed, and at which height in degrees; none for noon.
    fn crossing(self) -> Option<(Crossing, f64)> {
        match self {
            Event::DawnAstronomical => Some((Crossing::Rising, -18.0)),
            Event::DawnNautical => Some((Crossing::Rising, -12.0)),
            Event::DawnCivil => Some((Crossing::Rising, -6.0)),
            Event::Sunrise => Some((Crossing::Rising, -34.0 / 60.0)),
            Event::SolarNoon => None,
            Event::Sunset => Some((Crossing::Setting, -34.0 / 60.0)),
            Event::DuskCivil => Some((Crossing::Setting, -6.0)),
            Event::DuskNautical => Some((Crossing::Setting, -12.0)),
            Event::DuskAstronomical => Some((Crossing::Setting, -18.0)),
        }
    }

    /// Whether the upper edge counts, and not the centre.
    fn is_of_edge(self) -> bool {
        matches!(self, Event::Sunrise | Event::Sunset)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Crossing {
    Rising,
    Setting,
}

/// At an event of the Sun, wherever it happens.
///
/// What does not happen on a day, such as sunrise in the polar night, is looked for on each of the 366 days to come; when it
/// never happens there, the schedule is due at the end of the search, as with Celery.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Solar {
    event: Event,
    latitude: f64,
    longitude: f64,
}

/// As Celery's `repr`: `<solar: sunset at latitude 52.5, longitude: 13.4>`.
impl fmt::Display for Solar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Solar { event, latitude, longitude } = self;
        write!(f, "<solar: {} at latitude {latitude:?}, longitude: {longitude:?}>", event.name())
    }
}

impl Solar {
    /// The event at a place: degrees north and degrees east.
    ///
    /// # Errors
    ///
    /// There is no such place.
    pub fn new(event: Event, latitude: f64, longitude: f64) -> Result<Self> {
        let check = |name, value: f64, greatest: f64| {
            if value.abs() <= greatest {
                return Ok(());
            }
            let words = format!("Argument {name} {value:?} is invalid, must be between -{greatest} and {greatest}.");
            Err(fault::failed("read a solar schedule", Fault::Value(words)))
        };
        check("latitude", latitude, 90.0)?;
        check("longitude", longitude, 180.0)?;
        Ok(Solar { event, latitude, longitude })
    }

    /// The instant of the first event after `last_run_at`, or of the end of the search.
    ///
    /// # Errors
    ///
    /// It would be beyond the years of the calendar.
    pub fn next_run(&self, last_run_at: Timestamp) -> Result<Timestamp> {
        let start = days(last_run_at);
        let found = self.next_event(start);
        wall::later(last_run_at, SignedDuration::from_micros(((found - start) * 86400e6).round() as i64))
    }

    pub(super) fn is_due(&self, last_run_at: Timestamp, now: Timestamp) -> Result<Due> {
        let next = self.next_run(last_run_at)?;
        if next > now {
            return Ok(Due::not_for(now.duration_until(next)));
        }
        Ok(Due::again_in(now.duration_until(self.next_run(now)?)))
    }

    fn next_event(&self, mut start: f64) -> f64 {
        let Some((crossing, height)) = self.event.crossing() else { return self.transit(start, 0.0) };
        for _ in 0..LONGEST_SEARCH {
            if let Some(found) = self.crossing(start, crossing, height.to_radians()) {
                return found;
            }
            start = self.transit(start, PI);
        }
        start
    }

    /// When the Sun is at this hour angle for the first time after `start`: 0 at noon, half a turn at midnight.
    fn transit(&self, start: f64, hour_angle: f64) -> f64 {
        let to_go = |day| hour_angle - Sun::at(day, self.place()).central_hour_angle;
        let first = to_go(start).rem_euclid(TAU);
        // A tenth of an arcsecond or so: it is there.
        let first = if first < 1e-8 { TAU } else { first };
        let mut day = start + first / TAU;
        for _ in 0..STEPS {
            day += nearest(to_go(day)) / TAU;
        }
        day
    }

    /// When the Sun crosses this height for the first time after `start`. None if it does not within a day: the search goes
    /// by the hour angle of the height for where the Sun stands at each step, and that of the last step decides.
    fn crossing(&self, start: f64, crossing: Crossing, height: f64) -> Option<f64> {
        let mut day = start;
        let mut target = None;
        for step in 0..STEPS {
            let sun = Sun::at(day, self.place());
            let height = if self.event.is_of_edge() { height - sun.radius } else { height };
            let angle = hour_angle(self.place(), sun, height);
            target = angle.ok();
            let angle = angle.unwrap_or_else(|bound| bound);
            let angle = if crossing == Crossing::Rising { -angle } else { angle };
            let to_go = angle - sun.hour_angle;
            let mut move_by = if step == 0 { to_go.rem_euclid(TAU) } else { nearest(to_go) } / TAU;
            if step == 0 && move_by < PRECISION {
                // This is the event that was: the next one is a day later.
                move_by += 1.0;
            }
            if move_by.abs() < PRECISION {
                break;
            }
            day += move_by;
        }
        target.map(|_| day)
    }

    fn place(&self) -> Place {
        Place { latitude: self.latitude.to_radians(), longitude: self.longitude.to_radians() }
    }
}

/// At which hour angle the Sun sinks to this height, where it stands now; the error is the nearest one if it never does.
fn hour_angle(place: Place, sun: Sun, height: f64) -> Result<f64, f64> {
    let (latitude, declination) = (place.latitude, sun.declination);
    let cosine = (height.sin() - latitude.sin() * declination.sin()) / (latitude.cos() * declination.cos());
    match cosine {
        _ if cosine < -1.0 => Err(PI),
        _ if cosine > 1.0 => Err(0.0),
        _ => Ok(cosine.acos()),
    }
}

/// Days since noon of 1 January 2000 in UTC.
fn days(instant: Timestamp) -> f64 {
    const NOON: i64 = 946_728_000_000_000;
    (instant.as_microsecond() - NOON) as f64 / 86400e6
}
