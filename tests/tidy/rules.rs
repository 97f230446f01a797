//! The rules of the house. Each takes sources and returns what breaks it, so that the rules have tests of their own.

use std::collections::HashMap;
use std::path::Path;

use crate::source::{Source, has_word, paths_from};

/// Imports point down only, and neighbours in a band do not see each other.
pub(crate) const BANDS: &[&[&str]] = &[
    &["error", "time"],
    &["protocol", "config", "url", "tls", "metrics", "http", "schedule"],
    &["redis_client", "amqp_client", "routing", "canvas", "trace"],
    &["transport", "backend", "task", "control", "events"],
    &["app"],
    &["worker", "beat"],
    &["cli", "testing"],
];

/// Where Python is spoken to, which takes `unsafe`.
pub(crate) const EXTENSION: &str = "python/src/extension";

const LONGEST_FILE: usize = 600;
const LONGEST_ARCHITECTURE: usize = 200;
/// The client libraries, and the only places that name them.
const CLIENTS: &[(&str, &[&str])] = &[
    ("redis", &["src/redis_client", "src/transport/redis", "src/backend/redis"]),
    ("lapin", &["src/amqp_client", "src/transport/amqp", "src/backend/rpc"]),
    ("rusqlite", &["src/backend/sql"]),
    ("tokio_postgres", &["src/backend/sql"]),
    ("tokio_postgres_rustls", &["src/backend/sql"]),
    ("opentelemetry", &["src/trace"]),
    ("hyper", &["src/http"]),
    ("hyper_util", &["src/http"]),
];
/// The only file of the core that holds `unsafe`, and the only one of the pool.
const SYSTEM: [&str; 2] = ["src/cli/memory/system.rs", "python/src/claims/page.rs"];
/// What a pure room may not name, and why it would.
const IMPURE: &[&str] =
    &["tokio", "tokio_util", "async", "TcpStream", "UnixStream", "UdpSocket", "TcpListener", "Clock"];
const CLOCK_READS: &[&str] = &["Instant::now", "SystemTime::now", "Timestamp::now", "Zoned::now"];

fn band(room: &str) -> Option<usize> {
    BANDS.iter().position(|rooms| rooms.contains(&room))
}

/// `Error` in `crate::Error` belongs to `error`: which room each name that `lib.rs` re-exports comes from.
pub(crate) fn reexports(lib: &Source) -> HashMap<String, String> {
    let code = lib.code();
    let mut found = HashMap::new();
    for statement in code.split("pub use ").skip(1) {
        let Some((room, tail)) = statement.split(';').next().and_then(|path| path.split_once("::")) else { continue };
        for name in tail.split(|c: char| c != '_' && !c.is_alphanumeric()).filter(|name| !name.is_empty()) {
            found.insert(name.to_owned(), room.trim().to_owned());
        }
    }
    found
}

/// Which rooms a file names that it may not see.
pub(crate) fn bands(source: &Source, reexports: &HashMap<String, String>) -> Vec<String> {
    let Some(room) = source.room() else { return Vec::new() };
    let Some(own) = band(room) else {
        return vec![format!("{}: the room `{room}` stands in no band", source.path)];
    };
    let code = source.code();
    let named = paths_from(&code, "crate").into_iter().chain(climbed(&code, source.module().len()));
    let mut problems: Vec<String> = named
        .filter_map(|path| {
            let name = *path.first()?;
            let target = reexports.get(name).filter(|_| band(name).is_none()).map_or(name, String::as_str);
            match band(target) {
                _ if target == room || name == "self" => None,
                Some(other) if other < own => None,
                Some(_) => Some(format!("{}: `{room}` names `{target}`, which is no band below its own", source.path)),
                None => Some(format!("{}: `crate::{name}` is no room and nothing that lib.rs re-exports", source.path)),
            }
        })
        .collect();
    problems.sort();
    problems.dedup();
    problems
}

/// Paths that reach the crate's root through `super`, for a file `depth` modules deep.
fn climbed(code: &str, depth: usize) -> Vec<Vec<&str>> {
    let ladder = vec!["super"; depth].join("::");
    let known = |path: &Vec<&str>| path.first().is_some_and(|name| band(name).is_some());
    paths_from(code, &ladder).into_iter().filter(known).collect()
}

/// Each client library is named in the places of its own; nothing in the core names pyo3.
pub(crate) fn foreign_crates(source: &Source) -> Vec<String> {
    let code = source.code();
    let mut problems = Vec::new();
    for (name, places) in CLIENTS {
        // A module of ours may have the same name.
        let local = code.contains(&format!("mod {name}"));
        let allowed = places.iter().any(|place| source.path.starts_with(place));
        if !local && !allowed && !paths_from(&code, name).is_empty() {
            problems.push(format!("{}: names the crate {name}", source.path));
        }
    }
    if has_word(&code, "pyo3") {
        problems.push(format!("{}: names pyo3", source.path));
    }
    problems
}

/// These rooms are values: no runtime, no sockets, no reading of clocks.
pub(crate) fn purity(source: &Source) -> Vec<String> {
    if !matches!(
        source.room(),
        Some("protocol" | "config" | "url" | "routing" | "canvas" | "events" | "metrics" | "schedule")
    ) {
        return Vec::new();
    }
    let code = source.code();
    let words = IMPURE.iter().filter(|word| has_word(&code, word));
    let reads = CLOCK_READS.iter().filter(|call| code.contains(**call));
    words.chain(reads).map(|name| format!("{}: a pure room names `{name}`", source.path)).collect()
}

/// No `unsafe` but in two files and the extension; rooms say what they are for; files stay short enough to read.
pub(crate) fn shape(source: &Source) -> Vec<String> {
    let mut problems = Vec::new();
    let may_be_unsafe = SYSTEM.contains(&source.path.as_str()) || source.path.starts_with(EXTENSION);
    if has_word(&source.code(), "unsafe") && !may_be_unsafe {
        problems.push(format!("{}: `unsafe` outside {SYSTEM:?} and the extension", source.path));
    }
    if source.path.ends_with("mod.rs") && !source.text.starts_with("//!") {
        problems.push(format!("{}: does not open with what the room is for (//!)", source.path));
    }
    let lines = source.text.lines().count();
    if lines > LONGEST_FILE {
        problems.push(format!("{}: {lines} lines, split it by meaning", source.path));
    }
    problems
}

/// Nothing that is true on one machine only.
pub(crate) fn words(source: &Source) -> Vec<String> {
    let forbidden = [["/ho", "me/"], ["/ro", "ot/"], ["/Us", "ers/"], ["/wo", "rk/"], ["/tmp", "/wt"]];
    let found = forbidden.iter().map(|halves| halves.concat()).filter(|word| source.text.contains(word));
    found.map(|word| format!("{}: a path of somebody's machine: {word}", source.path)).collect()
}

/// ARCHITECTURE.md is short, names every room, and each of its invariants names a test that exists.
pub(crate) fn architecture(page: &Source, rooms: &[String], root: &Path) -> Vec<String> {
    let mut problems = Vec::new();
    let lines = page.text.lines().count();
    if lines > LONGEST_ARCHITECTURE {
        problems.push(format!("{}: {lines} lines; {LONGEST_ARCHITECTURE} are enough", page.path));
    }
    let unnamed = rooms.iter().filter(|room| !page.text.contains(room.as_str()));
    problems.extend(unnamed.map(|room| format!("{}: does not name the room `{room}`", page.path)));
    for item in invariants(&page.text).iter().filter(|item| !item.contains(".rs::") && !item.contains(".py::")) {
        problems.push(format!("{}: an invariant names no test: {item}", page.path));
    }
    problems
        .extend(quoted(&page.text).filter_map(|name| missing(name, root)).map(|what| format!("{}: {what}", page.path)));
    problems
}

/// The list items of the section "Invariants", each with its continuation lines.
fn invariants(text: &str) -> Vec<String> {
    let section = text.split("\n## ").find(|section| section.starts_with("Invariants")).unwrap_or("");
    section.split("\n- ").skip(1).map(|item| item.lines().collect::<Vec<_>>().join(" ")).collect()
}

fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// What is wrong with a reference like `tests/tidy.rs::name` or `src/worker/intake.rs`, if it is one.
pub(crate) fn missing(name: &str, root: &Path) -> Option<String> {
    if !["tests/", "src/", "examples/", "macros/"].iter().any(|folder| name.starts_with(folder)) || name.contains(' ') {
        return None;
    }
    let (file, function) = name.split_once("::").map_or((name, None), |(file, function)| (file, Some(function)));
    if file.contains(['*', '<', '{']) {
        return None;
    }
    let path = root.join(file);
    let Some(function) = function else {
        return (!path.exists()).then(|| format!("`{file}` does not exist"));
    };
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let function = function.rsplit("::").next().unwrap_or(function);
    let defined = ["fn ", "def "].iter().any(|keyword| text.contains(&format!("{keyword}{function}(")));
    (!defined).then(|| format!("there is no test `{name}`"))
}
