//! The `#[task]` attribute of the `celeriac` crate.
