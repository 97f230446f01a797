//! [`DateTime`]: a Python `datetime.datetime`, naive or aware.

use jiff::{civil, tz::Offset};

/// A Python `datetime.datetime`: a civil time and, if it is aware, its offset from UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DateTime {
    /// Year to microsecond as written.
    pub civil: civil::DateTime,
    /// The offset from UTC; `None` for a naive value.
    pub offset: Option<Offset>,
}
