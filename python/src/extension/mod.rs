//! The Python module `celeriac._celeriac`, and what makes a module of a crate's own tasks: converts types and calls the
//! rest, nothing more.

mod beat;
mod beat_store;
mod call;
mod channel;
mod export;
mod handler;
mod help;
mod objects;
mod panel;
mod runtimes;
mod settings;
mod signals;
mod values;
mod worker;

// What `python_tasks!` writes names these.
pub use export::export;
pub use pyo3;

use pyo3::prelude::pymodule;

/// What of the package `celeriac` is Rust.
#[pymodule]
mod _celeriac {
    #[pymodule_export]
    use super::beat::is_known_store;
    #[pymodule_export]
    use super::channel::Channel;
    #[pymodule_export]
    use super::panel::WorkerReins;
    #[pymodule_export]
    use super::worker::{known_annotations, known_settings, refusal, run, without_effect};

    /// What a module of Rust tasks must have been made with.
    #[pymodule_export]
    #[allow(non_upper_case_globals)]
    const version: &str = super::export::VERSION;
}
