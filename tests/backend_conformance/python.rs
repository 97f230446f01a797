//! The Pythons of `scripts/setup.sh`.

use std::io::{self, Write};
use std::path::PathBuf;

/// A Python of `scripts/setup.sh`: the present Celery, or an old one that knows nothing of claims. `None`, and a word
/// about it, where it is not installed.
pub(crate) fn python(is_old: bool) -> Option<PathBuf> {
    let (variable, venv) = match is_old {
        false => ("CELERIAC_TEST_PYTHON", ".build/venv"),
        true => ("CELERIAC_TEST_OLD_PYTHON", ".build/venv-5.3"),
    };
    let installed = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(venv).join("bin/python");
    let python = std::env::var_os(variable).map_or(installed, PathBuf::from);
    if !python.exists() {
        // Not `eprintln`, which is shown for failing tests alone.
        let _ = writeln!(
            io::stderr(),
            "skipped: {} is not installed: scripts/setup.sh does it, and {variable} names another",
            python.display()
        );
        return None;
    }
    Some(python)
}
