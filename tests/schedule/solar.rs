//! The Sun, beside what Celery found with `ephem` (`record_solar.py` wrote it down).

use celeriac::schedule::{Event, Rules, Schedule, Solar};
use jiff::Timestamp;

struct Recorded {
    line: &'static str,
    latitude: f64,
    /// How far ours is from Celery's, in seconds.
    error: f64,
}

fn recorded() -> Vec<Recorded> {
    let compare = |line: &'static str| {
        let [event, latitude, longitude, last, next] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let latitude = latitude.parse().unwrap();
        let solar = Solar::new(Event::named(event).unwrap(), latitude, longitude.parse().unwrap()).unwrap();
        let last = Timestamp::from_microsecond(last.parse().unwrap()).unwrap();
        let error = solar.next_run(last).unwrap().as_microsecond() - next.parse::<i64>().unwrap();
        Recorded { line, latitude, error: error as f64 / 1e6 }
    };
    include_str!("solar.txt").lines().map(compare).collect()
}

#[test]
fn events_are_those_of_ephem_within_the_tolerance() {
    let all = recorded();
    // Where the Sun crosses each height at a slant, and where it grazes some.
    for (degrees, tolerance) in [(45.0, 1.0), (60.0, 10.0), (90.0, 20.0)] {
        let there = all.iter().filter(|recorded| recorded.latitude.abs() <= degrees);
        for Recorded { line, error, .. } in there {
            assert!(error.abs() <= tolerance, "{error} seconds off, up to {degrees}°: {line}");
        }
    }
    let mut errors: Vec<f64> = all.iter().filter(|at| at.latitude.abs() <= 60.0).map(|at| at.error.abs()).collect();
    errors.sort_by(f64::total_cmp);
    assert!(errors[errors.len() * 98 / 100] < 0.3, "{errors:?}");
}

/// In Tromsø the Sun neither rises in January's first weeks nor sets in June.
#[test]
fn what_does_not_happen_on_a_day_is_looked_for_on_later_ones() {
    let solar = |event| Solar::new(event, 69.65, 18.96).unwrap();
    let date = |event, last: &str| solar(event).next_run(last.parse().unwrap()).unwrap().to_string()[..10].to_owned();
    assert_eq!(date(Event::Sunrise, "2026-12-01T00:00:00Z"), "2027-01-15");
    assert_eq!(date(Event::Sunset, "2026-06-01T12:00:00Z"), "2026-07-25");
    assert_eq!(date(Event::SolarNoon, "2026-12-21T00:00:00Z"), "2026-12-21");
}

#[test]
fn each_event_comes_once_a_day() {
    let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let rules = Rules::default();
    for (name, event) in Event::ALL {
        let schedule: Schedule = Solar::new(event, 48.0, 11.5).unwrap().into();
        let fires: Vec<Timestamp> = schedule.fires(start, &rules).take(365).map(|fire| fire.unwrap()).collect();
        for pair in fires.windows(2) {
            let hours = pair[0].duration_until(pair[1]).as_secs_f64() / 3600.0;
            assert!((23.8..24.2).contains(&hours), "{name} is {hours} hours after {}", pair[0]);
        }
    }
}

#[test]
fn what_is_due_is_asked_again_for_the_next_one() {
    let noon: Schedule = Solar::new(Event::SolarNoon, 52.52, 13.4).unwrap().into();
    let (rules, last) = (Rules::default(), "2026-06-21T00:00:00Z".parse().unwrap());
    let at = noon.next_run(last, &rules).unwrap();
    let early = noon.is_due(last, at - jiff::SignedDuration::from_secs(60), &rules).unwrap();
    assert_eq!((early.is_due, early.next.unwrap().as_secs()), (false, 60));
    let due = noon.is_due(last, at, &rules).unwrap();
    assert!(due.is_due && (86_390..86_420).contains(&due.next.unwrap().as_secs()), "{due:?}");
}

#[test]
fn what_is_wrong_is_said_in_celerys_words() {
    let words = |error: celeriac::Error| celeriac::schedule::exception(&error).unwrap();
    let latitude = words(Solar::new(Event::Sunset, 91.0, 0.0).unwrap_err());
    assert_eq!(latitude, ("ValueError", "Argument latitude 91.0 is invalid, must be between -90 and 90.".to_owned()));
    let longitude = words(Solar::new(Event::Sunset, 0.0, -180.5).unwrap_err());
    assert_eq!(
        longitude,
        ("ValueError", "Argument longitude -180.5 is invalid, must be between -180 and 180.".to_owned())
    );
    let event = words(Event::named("noon").unwrap_err()).1;
    assert_eq!(
        event,
        "Argument event \"noon\" is invalid, must be one of dawn_astronomical, dawn_civil, dawn_nautical, \
         dusk_astronomical, dusk_civil, dusk_nautical, solar_noon, sunrise, sunset."
    );
    assert_eq!(
        Solar::new(Event::Sunset, 52.5, 13.0).unwrap().to_string(),
        "<solar: sunset at latitude 52.5, longitude: 13.0>"
    );
}
