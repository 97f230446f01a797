//! Beat, as far as Python has a part in it.

use pyo3::prelude::*;

/// Whether Rust has a store of that name.
#[pyfunction]
pub(super) fn is_known_store(name: &str) -> bool {
    celeriac::beat::is_known(name)
}
