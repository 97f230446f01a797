//! Compiles the files of `tests/macros/fail` and compares what the compiler says with the snapshot beside each.
//!
//! The compiler is called with the library that the tests were linked with: nothing is built a second time.
//! `UPDATE_SNAPSHOTS=1 cargo test --test macros` writes the snapshots anew.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::{env, fs};

use crate::cargo::cargo;

static LIBRARY: LazyLock<PathBuf> = LazyLock::new(library);

/// Compiles `fail/<case>.rs`, which must not succeed, and compares the errors with `fail/<case>.stderr`.
pub(crate) fn check(case: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/macros/fail");
    let (source, snapshot) = (folder.join(format!("{case}.rs")), folder.join(format!("{case}.stderr")));
    let said = compile(&source);
    if env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::write(&snapshot, &said).unwrap();
    }
    let expected = fs::read_to_string(&snapshot).unwrap_or_default();
    assert_eq!(said, expected, "the compiler says of {} what its snapshot does not", source.display());
}

/// What the compiler says of `source`, one line for each error.
fn compile(source: &Path) -> String {
    let compiler = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(compiler)
        .current_dir(source.parent().unwrap())
        .args(["--edition=2024", "--emit=metadata", "--error-format=short", "--cap-lints=allow", "-o"])
        .arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("fail.rmeta"))
        .arg("--extern")
        .arg(format!("celeriac={}", LIBRARY.display()))
        .arg(format!("-Ldependency={}", LIBRARY.parent().unwrap().display()))
        .arg(source.file_name().unwrap())
        .output()
        .unwrap();
    assert!(!output.status.success(), "{} compiles", source.display());
    String::from_utf8(output.stderr).unwrap()
}

/// The library that this test is linked with: Cargo, asked for this test again, has nothing to do but say where it is.
fn library() -> PathBuf {
    let mut cargo = cargo();
    cargo.args(["test", "--no-run", "--package=celeriac", "--test=macros", "--message-format=json"]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let output = cargo.stderr(Stdio::inherit()).output().unwrap();
    let messages = String::from_utf8(output.stdout).unwrap();
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let artifact = |message: &serde_json::Value| {
        let is_library = message["target"]["name"] == "celeriac" && message["target"]["kind"][0] == "lib";
        let mut files = message["filenames"].as_array()?.iter().filter_map(|file| file.as_str());
        is_library.then(|| files.find(|file| file.ends_with(".rlib"))).flatten().map(PathBuf::from)
    };
    messages.filter_map(|message| artifact(&message)).next_back().expect("Cargo names the library")
}
