//! What a worker counts, and the Prometheus text in which it is read.
//!
//! [`Family`] is one metric with its labels, of [`Counter`]s, [`Gauge`]s or [`Histogram`]s; [`Text`] writes them. Counting takes no
//! lock and, once a combination of labels was seen, no memory; how many combinations there are is bounded. This room does
//! no I/O, reads no clock and knows nothing of tasks: who counts what is not said here.

mod counter;
mod family;
mod text;

pub(crate) use counter::{Counted, Counter, Gauge, Histogram};
pub(crate) use family::Family;
pub(crate) use text::{Kind, Text};
