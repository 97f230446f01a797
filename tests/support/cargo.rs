//! Cargo, asked by a test for something that has been compiled already.

use std::env;
use std::process::Command;

/// Cargo in the repository, as a person calls it: what `cargo test` tells a test of its package would make build scripts of
/// others believe that they are out of date, and the library with all that is linked with it would be compiled once more.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CARGO_")) {
        if !matches!(name.to_str(), Some("CARGO_HOME" | "CARGO_TARGET_DIR" | "CARGO_NET_OFFLINE" | "CARGO_INCREMENTAL"))
        {
            cargo.env_remove(name);
        }
    }
    cargo
}
