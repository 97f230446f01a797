//! Where the Sun stands, as seen from a place at sea level.
//!
//! The Earth's orbit is the theory VSOP87 of Bretagnon and Francou, with the terms above 0.2"; the rest follows Jean Meeus
//! (*Astronomical Algorithms*, chapters 12, 22 and 25). All angles are radians, all times days since noon of 1 January 2000 in UTC.

use std::f64::consts::{PI, TAU};

/// The Sun's radius, in units of its mean distance.
const RADIUS: f64 = 4.65242e-3;
/// The Earth's, in the same.
const EARTH: f64 = 4.26352e-5;
/// By how much the Earth moves towards where the Sun's light comes from, at its mean distance: 20.4898".
const ABERRATION: f64 = 20.4898;

/// A place on the Earth.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) latitude: f64,
    pub(super) longitude: f64,
}

/// The Sun at one time from one place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sun {
    /// How far it is past the meridian, as seen from the place.
    pub(super) hour_angle: f64,
    /// The same as seen from the middle of the Earth.
    pub(super) central_hour_angle: f64,
    /// Its declination as seen from the place.
    pub(super) declination: f64,
    /// The radius of its disc.
    pub(super) radius: f64,
}

impl Sun {
    /// The Sun at `day` from `place`.
    pub(super) fn at(day: f64, place: Place) -> Sun {
        let century = (day + delta_t(day) / 86400.0) / 36525.0;
        let (longitude, distance) = orbit(century);
        let tilt = Nutation::at(century);
        let obliquity = mean_obliquity(century) + tilt.in_obliquity;
        let apparent = longitude + tilt.in_longitude - arcseconds(ABERRATION) / distance;
        let right_ascension = (obliquity.cos() * apparent.sin()).atan2(apparent.cos());
        let declination = (obliquity.sin() * apparent.sin()).asin();
        let local_time = sidereal_time(day) + tilt.in_longitude * obliquity.cos() + place.longitude;
        let central_hour_angle = local_time - right_ascension;
        let (hour_angle, declination) = seen_from(place, central_hour_angle, declination, distance);
        Sun { hour_angle, central_hour_angle, declination, radius: RADIUS / distance }
    }
}

/// An angle between half a turn back and half a turn on.
pub(super) fn nearest(angle: f64) -> f64 {
    let angle = angle.rem_euclid(TAU);
    if angle > TAU / 2.0 { angle - TAU } else { angle }
}

/// The hour angle and the declination of what stands at these for the middle of the Earth.
fn seen_from(place: Place, hour_angle: f64, declination: f64, distance: f64) -> (f64, f64) {
    let parallax = EARTH / distance;
    // Towards the meridian, towards the west, and towards the pole.
    let x = declination.cos() * hour_angle.cos() - parallax * place.latitude.cos();
    let y = declination.cos() * hour_angle.sin();
    let z = declination.sin() - parallax * place.latitude.sin();
    (y.atan2(x), z.atan2(x.hypot(y)))
}

/// A term of the theory: how much it adds at most, where it stands in 2000, and how fast it turns in a millennium.
type Term = (f64, f64, f64);

/// The Earth's longitude in 1e-8 radians: what stays as it is.
const LONGITUDE: [Term; 31] = [
    (175347046.0, 0.0, 0.0),
    (3341656.0, 4.6692568, 6283.0758500),
    (34894.0, 4.62610, 12566.15170),
    (3497.0, 2.7441, 5753.3849),
    (3418.0, 2.8289, 3.5231),
    (3136.0, 3.6277, 77713.7715),
    (2676.0, 4.4181, 7860.4194),
    (2343.0, 6.1352, 3930.2097),
    (1324.0, 0.7425, 11506.7698),
    (1273.0, 2.0371, 529.6910),
    (1199.0, 1.1096, 1577.3435),
    (990.0, 5.233, 5884.927),
    (902.0, 2.045, 26.298),
    (857.0, 3.508, 398.149),
    (780.0, 1.179, 5223.694),
    (753.0, 2.533, 5507.553),
    (505.0, 4.583, 18849.228),
    (492.0, 4.205, 775.523),
    (357.0, 2.920, 0.067),
    (317.0, 5.849, 11790.629),
    (284.0, 1.899, 796.298),
    (271.0, 0.315, 10977.079),
    (243.0, 0.345, 5486.778),
    (206.0, 4.806, 2544.314),
    (205.0, 1.869, 5573.143),
    (202.0, 2.458, 6069.777),
    (156.0, 0.833, 213.299),
    (132.0, 3.411, 2942.463),
    (126.0, 1.083, 20.775),
    (115.0, 0.645, 0.980),
    (103.0, 0.636, 4694.003),
];
/// The same: what grows with each millennium.
const LONGITUDE_GROWING: [Term; 6] = [
    (628331966747.0, 0.0, 0.0),
    (206059.0, 2.678235, 6283.075850),
    (4303.0, 2.6351, 12566.1517),
    (425.0, 1.590, 3.523),
    (119.0, 5.796, 26.298),
    (109.0, 2.966, 1577.344),
];
/// The same: what grows with its square.
const LONGITUDE_SQUARE: [Term; 3] = [(52919.0, 0.0, 0.0), (8720.0, 1.0721, 6283.0758), (309.0, 0.867, 12566.152)];
/// The Earth's distance in 1e-8 of the mean one.
const DISTANCE: [Term; 6] = [
    (100013989.0, 0.0, 0.0),
    (1670700.0, 3.0984635, 6283.0758500),
    (13956.0, 3.05525, 12566.15170),
    (3084.0, 5.1985, 77713.7715),
    (1628.0, 1.1739, 5753.3849),
    (1576.0, 2.8469, 7860.4194),
];
const DISTANCE_GROWING: [Term; 1] = [(103019.0, 1.107490, 6283.075850)];

/// The Sun's true longitude from the mean equinox of the date, and its distance.
fn orbit(century: f64) -> (f64, f64) {
    let t = century / 10.0;
    let sum = |terms: &[Term]| -> f64 { terms.iter().map(|(most, at, speed)| most * (at + speed * t).cos()).sum() };
    let longitude = sum(&LONGITUDE) + t * (sum(&LONGITUDE_GROWING) + t * sum(&LONGITUDE_SQUARE));
    let distance = sum(&DISTANCE) + t * sum(&DISTANCE_GROWING);
    // The Sun is where the Earth sees it, opposite; the last is what catalogues of stars differ by.
    (longitude * 1e-8 + PI - arcseconds(0.09033), distance * 1e-8)
}

fn mean_obliquity(century: f64) -> f64 {
    arcseconds(84381.448 - century * (46.8150 + century * (0.00059 - century * 0.001813)))
}

/// How the Earth's axis sways.
struct Nutation {
    in_longitude: f64,
    in_obliquity: f64,
}

impl Nutation {
    fn at(century: f64) -> Nutation {
        let node = (125.04452 - 1934.136261 * century).to_radians();
        let sun = 2.0 * (280.4665 + 36000.7698 * century).to_radians();
        let moon = 2.0 * (218.3165 + 481267.8813 * century).to_radians();
        let in_longitude = -17.20 * node.sin() - 1.32 * sun.sin() - 0.23 * moon.sin() + 0.21 * (2.0 * node).sin();
        let in_obliquity = 9.20 * node.cos() + 0.57 * sun.cos() + 0.10 * moon.cos() - 0.09 * (2.0 * node).cos();
        Nutation { in_longitude: arcseconds(in_longitude), in_obliquity: arcseconds(in_obliquity) }
    }
}

/// Mean sidereal time at Greenwich, in which UTC stands for UT1: they are never a second apart.
fn sidereal_time(day: f64) -> f64 {
    let century = day / 36525.0;
    let degrees = 280.46061837 + 360.98564736629 * day + century * century * 0.000387933;
    degrees.to_radians()
}

/// How many seconds the even time of the orbits is ahead of the Earth's turning: Espenak and Meeus for 2005 to 2050. In
/// these seconds the Sun moves by a few arcseconds, so that nothing finer is worth while.
fn delta_t(day: f64) -> f64 {
    let years = day / 365.25;
    62.92 + years * (0.32217 + years * 0.005589)
}

fn arcseconds(angle: f64) -> f64 {
    (angle / 3600.0).to_radians()
}
