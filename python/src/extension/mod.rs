//! The Python module `celeriac._celeriac`: converts types and calls the rest, nothing more.

mod channel;
mod objects;
mod settings;
mod signals;
mod worker;

use pyo3::prelude::pymodule;

/// What of the package `celeriac` is Rust.
#[pymodule]
mod _celeriac {
    #[pymodule_export]
    use super::channel::Channel;
    #[pymodule_export]
    use super::worker::{run, without_effect};
}
