//! `--autoscale`: between what the pool grows and shrinks.

use std::env;
use std::time::Duration;

use super::failure::Failure;
use crate::worker::Autoscale;

/// The most and the least that run at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    max: u32,
    min: u32,
}

/// Two numbers in either order, or the larger one alone (celery/bin/worker.py `Autoscale`).
pub(super) fn bounds(text: &str) -> Result<Bounds, String> {
    let numbers: Result<Vec<u32>, _> = text.split(',').map(|number| number.trim().parse()).collect();
    let wrong = || format!("expected two whole numbers with a comma between them, or one, and not '{text}'");
    let (one, other) = match numbers.as_deref() {
        Ok([one]) => (*one, 0),
        Ok([one, other]) => (*one, *other),
        _ => return Err(wrong()),
    };
    match one.max(other) {
        0 => Err("a pool of no place at all runs nothing".to_owned()),
        max => Ok(Bounds { max, min: one.min(other) }),
    }
}

impl Bounds {
    /// The same with how long the pool stays large: `AUTOSCALE_KEEPALIVE` in the environment (celery/worker/autoscale.py).
    pub(super) fn autoscale(self) -> Result<Autoscale, Failure> {
        let keepalive = match env::var("AUTOSCALE_KEEPALIVE") {
            Ok(text) => keepalive(&text)?,
            Err(_) => Autoscale::KEEPALIVE,
        };
        Ok(Autoscale { max: self.max, min: self.min, keepalive })
    }
}

fn keepalive(text: &str) -> Result<Duration, Failure> {
    let seconds = text.trim().parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let wrong = || Failure::usage("AUTOSCALE_KEEPALIVE: expected a number of seconds above 0");
    seconds.filter(|seconds| !seconds.is_zero()).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_read_in_either_order() {
        for (text, max, min) in [("10,3", 10, 3), ("3,10", 10, 3), ("10", 10, 0), (" 4 , 4 ", 4, 4)] {
            assert_eq!(bounds(text), Ok(Bounds { max, min }), "{text}");
        }
        for text in ["", "a", "1,2,3", "1,", "-1", "0,0", "0"] {
            assert!(bounds(text).is_err(), "{text}");
        }
        assert_eq!(keepalive("0.5").ok(), Some(Duration::from_millis(500)));
        for text in ["", "0", "-1", "soon", "inf"] {
            assert!(keepalive(text).is_err(), "{text}");
        }
    }
}
