//! Time zones: [`named`], and the machine's own.

use std::env;
use std::fs;
use std::path::Path;

use jiff::tz::{TimeZone, TimeZoneDatabase};

/// What is a copy of a zone's file, or a link to one.
const LOCALTIME: &str = "/etc/localtime";

/// The machine's time zone, as `TimeZone::system` finds it. That looks through all zones there are for the name of the one
/// in use, which takes as long as all else that a worker does before it connects, and nothing shows the name: where `TZ`
/// names no other, the zone's file is all that is read.
#[expect(clippy::disallowed_methods, reason = "where `TZ` names a zone, it is looked for")]
pub(crate) fn local() -> TimeZone {
    let of_machine = if env::var_os("TZ").is_none() { read(Path::new(LOCALTIME)) } else { None };
    of_machine.unwrap_or_else(TimeZone::system)
}

/// The zone of that name: of the machine's database, or of the one that is compiled in, for systems differ in the old
/// names that they know (`US/Eastern`) and small ones have no zones at all. Celery depends on PyPI's `tzdata` for that.
/// Any other text is read as what the variable `TZ` says in POSIX: `<+0530>-5:30` is five and a half hours east of
/// Greenwich. `None`: there is no such zone.
pub fn named(name: &str) -> Option<TimeZone> {
    TimeZone::get(name).or_else(|_| TimeZoneDatabase::bundled().get(name)).or_else(|_| TimeZone::posix(name)).ok()
}

fn read(file: &Path) -> Option<TimeZone> {
    TimeZone::tzif(LOCALTIME, &fs::read(file).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the two are compared")]
    fn it_tells_the_time_that_the_system_tells() {
        for moment in ["2026-01-22T12:00:00Z", "2026-07-22T12:00:00Z"] {
            let moment: Timestamp = moment.parse().unwrap();
            assert_eq!(local().to_offset(moment), TimeZone::system().to_offset(moment));
        }
    }

    #[test]
    fn a_zone_that_the_machine_does_not_know_is_known() {
        for name in TimeZoneDatabase::bundled().available() {
            named(name.as_str()).unwrap();
        }
        assert_eq!(named("us/eastern").unwrap().iana_name(), Some("US/Eastern"));
        assert!(named("Europe/Nowhere").is_none());
    }

    #[test]
    fn a_zone_may_be_an_offset_alone() {
        for (name, seconds) in [("<+0530>-5:30", 19_800), ("<-0330>3:30", -12_600), ("<+0200>-2", 7200)] {
            let zone = named(name).unwrap();
            assert_eq!(zone.to_offset(Timestamp::UNIX_EPOCH).seconds(), seconds, "{name}");
        }
    }

    #[test]
    fn a_zones_file_is_read_and_any_other_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("localtime");
        assert!(read(&file).is_none(), "there is no file");
        fs::write(&file, "Europe/Berlin\n").unwrap();
        assert!(read(&file).is_none(), "it is no zone");
        // An hour east of Greenwich, always (RFC 9636).
        let mut zone = b"TZif2".to_vec();
        zone.extend([0; 15]);
        zone.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 4]);
        zone.extend([0, 0, 14, 16, 0, 0]);
        zone.extend(b"CET\0");
        let second = zone.clone();
        zone.extend(second);
        zone.extend(b"\nCET-1\n");
        fs::write(&file, zone).unwrap();
        let moment: Timestamp = "2026-07-22T12:00:00Z".parse().unwrap();
        assert_eq!(read(&file).unwrap().to_offset(moment).seconds(), 3600);
    }
}
