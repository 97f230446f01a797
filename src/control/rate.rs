//! [`Rate`]: how often tasks of one name may start.

use std::time::Duration;

use super::{Result, raise};
use crate::protocol::{Value, repr};

/// Starts for each second: finite, and above zero.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Rate(f64);

impl Rate {
    /// Reads `"10/s"`, `"100/m"`, `"1/h"` or a number for each second; nothing, `""` and 0 stand for no limit
    /// (celery/utils/time.py `rate`).
    ///
    /// # Errors
    /// Python's `ValueError` for what is no number, `KeyError` for another unit, `TypeError` for another type. A rate below
    /// zero, which stock Celery accepts and then never starts the task again, is a `ValueError`.
    pub fn read(value: &Value) -> Result<Option<Self>> {
        match value {
            value if !value.is_truthy() => Ok(None),
            Value::Int(number) => Rate::checked(*number as f64, value),
            Value::Float(number) => Rate::checked(*number, value),
            Value::Bool(_) => Rate::checked(1.0, value),
            Value::String(text) => Rate::checked(per_second(text)?, value),
            other => {
                let name = other.type_name();
                raise("TypeError", format!("float() argument must be a string or a real number, not '{name}'"))
            }
        }
    }

    /// Reads the text of a setting.
    ///
    /// # Errors
    /// As [`Rate::read`].
    pub fn parse(text: &str) -> Result<Option<Self>> {
        Rate::read(&text.into())
    }

    /// From one start to the next.
    pub fn spacing(self) -> Duration {
        // A rate that is too small for its spacing to be told is so small that nothing starts in our time.
        Duration::try_from_secs_f64(1.0 / self.0).unwrap_or(FOREVER)
    }

    fn checked(rate: f64, value: &Value) -> Result<Option<Self>> {
        if rate < 0.0 || rate.is_nan() {
            return raise("ValueError", format!("a rate limit must not be negative: {}", repr::repr(value)));
        }
        Ok((rate > 0.0 && rate.is_finite()).then_some(Rate(rate)))
    }
}

/// A hundred years.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

fn per_second(text: &str) -> Result<f64> {
    let (number, unit) = text.split_once('/').unwrap_or((text, ""));
    let seconds = match unit {
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        other => return raise("KeyError", other),
    };
    match number.trim().parse::<f64>() {
        Ok(number) => Ok(number / seconds),
        Err(_) => {
            raise("ValueError", format!("could not convert string to float: {}", repr::repr(&Value::from(number))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_celery_reads_them() {
        let rows: [(Value, std::result::Result<Option<f64>, &str>); 17] = [
            ("10/s".into(), Ok(Some(10.0))),
            ("90/m".into(), Ok(Some(1.5))),
            ("1/h".into(), Ok(Some(1.0 / 3600.0))),
            ("0.5".into(), Ok(Some(0.5))),
            ("5/".into(), Ok(Some(5.0))),
            (3.into(), Ok(Some(3.0))),
            (0.25.into(), Ok(Some(0.25))),
            (Value::Null, Ok(None)),
            ("".into(), Ok(None)),
            (0.into(), Ok(None)),
            ("0/m".into(), Ok(None)),
            ("inf".into(), Ok(None)),
            ("abc".into(), Err("ValueError(\"could not convert string to float: 'abc'\")")),
            ("5/x".into(), Err("KeyError('x')")),
            ("nan".into(), Err("ValueError(\"a rate limit must not be negative: 'nan'\")")),
            ("-1/s".into(), Err("ValueError(\"a rate limit must not be negative: '-1/s'\")")),
            ([1].into(), Err("TypeError(\"float() argument must be a string or a real number, not 'list'\")")),
        ];
        for (value, expected) in rows {
            let read = Rate::read(&value).map(|rate| rate.map(|rate| rate.0)).map_err(|error| error.to_string());
            assert_eq!(read, expected.map_err(str::to_owned), "{value:?}");
        }
    }

    #[test]
    fn spacings_are_finite() {
        assert_eq!(Rate(4.0).spacing(), Duration::from_millis(250));
        assert_eq!(Rate(f64::MIN_POSITIVE).spacing(), FOREVER);
        assert_eq!(Rate(1e300).spacing(), Duration::ZERO);
    }
}
