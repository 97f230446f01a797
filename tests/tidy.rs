//! The rules of the house, checked by reading the sources: who imports whom, what is named where, what the pages promise.

#[path = "tidy/features.rs"]
mod features;
#[path = "tidy/proofs.rs"]
mod proofs;
#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/source.rs"]
mod source;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use features::Features;
use source::{Source, files};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn assert_none(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

fn core() -> Vec<Source> {
    files(&root(), "src", &[".rs"])
}

#[test]
fn imports_point_down_only() {
    let sources = core();
    let lib = sources.iter().find(|source| source.path == "src/lib.rs").expect("src/lib.rs is there");
    let reexports = rules::reexports(lib);
    assert_none(sources.iter().flat_map(|source| rules::bands(source, &reexports)).collect());
}

#[test]
fn each_client_library_is_named_in_three_places_and_python_in_none() {
    assert_none(core().iter().flat_map(rules::foreign_crates).collect());
}

/// The pool of Python's processes is plain Rust: what converts types is apart.
#[test]
fn pyo3_is_named_in_the_extension_alone() {
    let sources = files(&root(), "python/src", &[".rs"]);
    assert!(sources.len() > 5, "the tree was read");
    let others = sources.iter().filter(|source| !source.path.starts_with(rules::EXTENSION));
    assert_none(others.flat_map(rules::foreign_crates).collect());
}

#[test]
fn protocol_and_config_do_no_io_and_read_no_clock() {
    assert_none(core().iter().flat_map(rules::purity).collect());
}

#[test]
fn files_are_safe_short_and_say_what_they_are_for() {
    let folders = ["src", "macros/src", "python/src", "python/tests", "examples", "tests"];
    let sources = folders.iter().flat_map(|folder| files(&root(), folder, &[".rs"]));
    assert_none(
        sources.filter(|source| !source.path.starts_with("tests/tidy")).flat_map(|s| rules::shape(&s)).collect(),
    );
}

#[test]
fn no_page_names_a_path_of_somebodys_machine() {
    let all = files(&root(), "", &[".rs", ".md", ".py", ".sh", ".toml", "Makefile", ".yml"]);
    assert!(all.len() > 20, "the tree was read");
    assert_none(all.iter().flat_map(rules::words).collect());
}

#[test]
fn architecture_is_short_and_names_tests_that_exist() {
    let page = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md is there");
    let mut rooms: Vec<String> = core().iter().filter_map(|source| source.room().map(str::to_owned)).collect();
    rooms.sort();
    rooms.dedup();
    assert_none(rules::architecture(&Source::new("ARCHITECTURE.md", &page), &rooms, &root()));
}

fn features() -> Features {
    Features::read(&std::fs::read_to_string(root().join("tests/features.toml")).expect("the features are there"))
}

#[test]
fn every_feature_names_tests_that_exist() {
    assert_none(features().problems(&root()));
}

/// `UPDATE_SNAPSHOTS=1` writes it anew: `make table`.
#[test]
fn readme_has_the_table_of_features() {
    let readme = root().join("README.md");
    let page = std::fs::read_to_string(&readme).expect("README.md is there");
    let expected = features().put_into(&page).expect("README.md has the markers of the table");
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&readme, &expected).expect("README.md can be written");
    } else {
        assert!(page == expected, "README.md has another table than tests/features.toml: `make table` writes it anew");
    }
}

#[test]
#[ignore = "scripts/test.sh asks this when all others have run"]
fn every_feature_was_proved() {
    let log = |name: &str| std::fs::read_to_string(root().join(".build").join(name)).expect("scripts/test.sh wrote it");
    assert_none(features().unproved(&log("cargo-test.log"), &log("pytest.log")));
    let (rows, tests) = features().counts();
    println!("{rows} rows of README's table, proved by {tests} tests");
}

/// The checker itself: bad snippets are caught, and good ones are left alone.
mod checker {
    use super::*;

    fn bands(path: &str, text: &str) -> usize {
        let reexports = HashMap::from([("Error".to_owned(), "error".to_owned()), ("App".to_owned(), "app".to_owned())]);
        rules::bands(&Source::new(path, text), &reexports).len()
    }

    #[test]
    fn catches_imports_that_do_not_point_down() {
        let rows = [
            ("src/worker/mod.rs", "use crate::task::Outcome;", 0),
            ("src/task/mod.rs", "use crate::worker::Worker;", 1),
            ("src/task/mod.rs", "use crate::transport::Delivery;", 1),
            ("src/task/mod.rs", "use crate::{Error, backend::{self, Disabled}, protocol};", 1),
            ("src/task/mod.rs", "fn f() { crate :: cli :: run() }", 1),
            ("src/task/mod.rs", "// crate::cli\nconst A: &str = \"crate::cli\"; /* crate::cli */", 0),
            ("src/task/mod.rs", "/// See [`crate::cli`].\nconst B: &str = r#\"crate::cli\"#;", 0),
            ("src/task/mod.rs", "use crate::Error; use crate::task::Run;", 0),
            ("src/protocol/mod.rs", "use crate::App;", 1),
            ("src/task/mod.rs", "use crate::surprise::Thing;", 1),
            ("src/task/mod.rs", "use super::worker;", 1),
            ("src/task/run.rs", "use super::super::worker::Worker;", 1),
            ("src/task/run.rs", "use super::Outcome; mod tests { use super::super::*; }", 0),
            ("src/surprise/mod.rs", "", 1),
            ("src/lib.rs", "pub use cli::run;", 0),
        ];
        for (path, text, expected) in rows {
            assert_eq!(bands(path, text), expected, "{path}: {text}");
        }
    }

    #[test]
    fn reads_what_lib_rs_reexports() {
        let lib = Source::new("src/lib.rs", "pub use error::{Error, Result};\npub use app::App; // pub use cli::no;\n");
        let found = rules::reexports(&lib);
        assert_eq!(found.get("Result").map(String::as_str), Some("error"));
        assert_eq!(found.get("App").map(String::as_str), Some("app"));
        assert_eq!(found.get("no"), None);
    }

    #[test]
    fn catches_crates_in_the_wrong_place() {
        let rows = [
            ("src/worker/mod.rs", "use redis::Client;", 1),
            ("src/worker/mod.rs", "fn f(c: &redis::Client) {}", 1),
            ("src/worker/mod.rs", "use crate::transport::redis::RedisTransport;", 0),
            ("src/transport/mod.rs", "mod redis;\npub use self::redis::RedisTransport;", 0),
            ("src/transport/redis/mod.rs", "use redis::Client;", 0),
            ("src/backend/redis.rs", "use redis::{Client, cmd};", 0),
            ("src/redis_client/mod.rs", "use redis::aio;", 0),
            ("src/backend/redis.rs", "use pyo3::prelude;", 1),
            ("src/transport/amqp/mod.rs", "use lapin::Channel;", 0),
            ("src/amqp_client/mod.rs", "fn f(c: lapin::Channel) {}", 0),
            ("src/backend/rpc/mod.rs", "use lapin::Channel;", 0),
            ("src/backend/redis/mod.rs", "use lapin::Channel;", 1),
            ("src/amqp_client/mod.rs", "use redis::Client;", 1),
            ("src/worker/mod.rs", "// no pyo3, no redis::Client", 0),
        ];
        for (path, text, expected) in rows {
            assert_eq!(rules::foreign_crates(&Source::new(path, text)).len(), expected, "{path}: {text}");
        }
    }

    #[test]
    fn catches_io_and_clocks_in_pure_rooms() {
        let rows = [
            ("src/protocol/mod.rs", "use tokio::fs;", 1),
            ("src/config/mod.rs", "fn f() { let t = jiff::Timestamp::now(); }", 1),
            ("src/config/mod.rs", "use std::net::TcpStream;", 1),
            ("src/protocol/mod.rs", "// tokio is not named here", 0),
            ("src/worker/mod.rs", "use tokio::time;", 0),
        ];
        for (path, text, expected) in rows {
            assert_eq!(rules::purity(&Source::new(path, text)).len(), expected, "{path}: {text}");
        }
    }

    #[test]
    fn catches_bad_shapes_and_words() {
        let long = "//! A room.\n".to_owned() + &"fn f() {}\n".repeat(601);
        let rows = [
            ("src/task/mod.rs", "//! A room.\nfn f() {}", 0),
            ("src/task/mod.rs", "use std::fmt;", 1),
            ("src/task/run.rs", "use std::fmt;", 0),
            ("src/task/run.rs", "fn f() { unsafe { g() } }", 1),
            ("python/src/pool/desk.rs", "fn f() { unsafe { g() } }", 1),
            ("python/src/extension/channel.rs", "fn f() { unsafe { g() } }", 0),
            ("src/cli/memory/system.rs", "fn f() { unsafe { g() } }", 0),
            ("python/src/claims/mod.rs", "//! A room.\nfn f() { unsafe { g() } }", 1),
            ("python/src/claims/page.rs", "fn f() { unsafe { g() } }", 0),
            ("src/cli/memory/mod.rs", "//! A room.\nfn f() { unsafe { g() } }", 1),
            ("src/task/run.rs", "#![forbid(unsafe_code)] // unsafe\nconst C: char = '\"'; fn f<'a>(x: &'a str) {}", 0),
            ("src/task/run.rs", long.as_str(), 1),
        ];
        for (path, text, expected) in rows {
            assert_eq!(rules::shape(&Source::new(path, text)).len(), expected, "{path}");
        }
        let path = ["see /ho", "me/ada/notes"].concat();
        assert_eq!(rules::words(&Source::new("README.md", &path)).len(), 1);
        assert_eq!(rules::words(&Source::new("README.md", "run /usr/bin/celeriac")).len(), 0);
    }

    #[test]
    fn catches_an_architecture_page_that_promises_too_much() {
        let check = |text: &str, rooms: &[&str]| {
            let rooms: Vec<String> = rooms.iter().map(|room| (*room).to_owned()).collect();
            rules::architecture(&Source::new("ARCHITECTURE.md", text), &rooms, Path::new(env!("CARGO_MANIFEST_DIR")))
                .len()
        };
        let real =
            "# A\n\n## Invariants\n\n- Down only: `tests/tidy.rs::imports_point_down_only`.\n\n## Next\n\n- no test\n";
        assert_eq!(check(real, &[]), 0);
        assert_eq!(check(&real.replace("imports_point", "imports_do_not_point"), &[]), 1);
        assert_eq!(check("\n## Invariants\n\n- Nothing is ever lost.\n", &[]), 1);
        assert_eq!(check("see `tests/nowhere.rs`", &[]), 1);
        assert_eq!(check("`worker`", &["worker", "cli"]), 1);
        assert_eq!(check(&"line\n".repeat(201), &[]), 1);
    }

    #[test]
    fn catches_features_that_promise_too_much() {
        let good = "[[area]]\nname = 'A'\n[[area.feature]]\nname = 'F'\nstock = 'yes'\nceleriac = 'partly: less'\n\
                    tests = ['tests/tidy.rs::imports_point_down_only']\n";
        let check = |text: &str| Features::read(text).problems(&root()).len();
        let feature = good.split_once("name = 'A'\n").unwrap().1;
        assert_eq!(check(good), 0);
        assert_eq!(check(&good.replace("only']", "also']")), 1);
        assert_eq!(check(&good.replace("only']", "only[case]']")), 0);
        assert_eq!(check(&good.replace("::imports_point_down_only", "")), 1);
        assert_eq!(check(&good.replace("partly: less", "perhaps")), 1);
        assert_eq!(check(&good.replace("'F'", "'F | G'")), 1);
        assert_eq!(check(&format!("{good}{feature}")), 1);
        let table = "<!-- features: written by `make table` -->\n\n| | Celery 5.7 | Celeriac |\n|---|---|---|\n\
                     | **A** | | |\n| F | yes | partly: less |\n\n<!-- /features -->\n";
        let page = |table: &str| format!("# P\n\n{table}\nrest\n");
        let stale = page(&table.replace("less", "more"));
        assert_eq!(Features::read(good).put_into(&stale), Some(page(table)));
        assert_eq!(Features::read(good).put_into("# no markers"), None);
    }

    #[test]
    fn reads_what_tests_said() {
        let cargo = "     Running unittests src/lib.rs (target/debug/deps/celeriac-ad11)\n\
                     test worker::settle::tests::a ... ok\ntest worker::poison::tests::a ... FAILED\n\
                     test worker::poison::tests::slow has been running for over 60 seconds\n\
                     \x20    Running tests/worker.rs (target/debug/deps/worker-b0f5)\n\
                     test canvas::b ... ok\ntest memory::c ... ok\ntest redis::c ... FAILED\ntest d ... ignored, why\n\
                     \x20  Doc-tests celeriac\ntest e ... ok\n";
        let pytest = "PASSED tests/python/test_a.py::test_a\nPASSED tests/python/test_a.py::test_b[x y]\n\
                      PASSED tests/python/test_a.py::test_b[z]\nPASSED tests/python/test_a.py::test_c[1]\n\
                      FAILED tests/python/test_a.py::test_c[2] - assert 1 == 2\nPASSED tests/python/test_s.py::test_a\n\
                      ERROR tests/python/test_a.py::test_d - oh\nSKIPPED [1] tests/python/test_s.py:3: no Python\n";
        let rows = [
            ("src/worker/settle.rs::a", true),
            ("src/worker/poison.rs::a", false),
            ("src/worker/mod.rs::a", false),
            ("src/worker/poison.rs::slow", false),
            ("tests/worker/canvas.rs::b", true),
            ("tests/worker.rs::b", true),
            ("tests/other.rs::b", false),
            ("tests/worker/suite.rs::c", false),
            ("tests/worker.rs::d", false),
            ("tests/worker.rs::e", false),
            ("tests/python/test_a.py::test_a", true),
            ("tests/python/test_a.py::test", false),
            ("tests/python/test_a.py::test_b", true),
            ("tests/python/test_a.py::test_b[x y]", true),
            ("tests/python/test_a.py::test_b[x]", false),
            ("tests/python/test_a.py::test_c", false),
            ("tests/python/test_a.py::test_c[1]", true),
            ("tests/python/test_a.py::test_d", false),
            ("tests/python/test_s.py::test_a", false),
        ];
        for (test, expected) in rows {
            assert_eq!(proofs::passed(test, cargo, pytest), expected, "{test}");
        }
    }
}
