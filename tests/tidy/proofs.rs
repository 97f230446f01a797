//! What `cargo test` and pytest said of a test.

/// Whether the test ran and passed: all of its cases, if it has several. `cargo` and `pytest` are what they printed.
pub(crate) fn passed(test: &str, cargo: &str, pytest: &str) -> bool {
    let verdicts = if test.contains(".py::") { of_pytest(test, pytest) } else { of_cargo(test, cargo) };
    !verdicts.is_empty() && verdicts.into_iter().all(|passed| passed)
}

/// The verdicts on `tests/worker/canvas.rs::name`, or `src/worker/settle.rs::name`, in whatever module it stands there.
fn of_cargo(test: &str, log: &str) -> Vec<bool> {
    let Some((file, function)) = test.rsplit_once("::") else { return Vec::new() };
    let module: Vec<&str> = file.trim_end_matches(".rs").split('/').filter(|part| *part != "mod").collect();
    let (target, module) = match module.as_slice() {
        ["src", module @ ..] => ("unittests src/lib.rs (target/debug/deps/celeriac-".to_owned(), module.join("::")),
        [_, target, ..] => (format!("tests/{target}.rs "), String::new()),
        _ => return Vec::new(),
    };
    let mut runs = "";
    let verdicts = log.lines().filter_map(|line| {
        if let Some(next) = line.trim_start().strip_prefix("Running ").or(line.trim_start().strip_prefix("Doc-tests "))
        {
            runs = next;
        }
        let (name, verdict) = line.strip_prefix("test ")?.split_once(" ... ")?;
        let is_it = name.rsplit("::").next() == Some(function) && name.starts_with(&module);
        (is_it && runs.starts_with(&target)).then_some(verdict == "ok")
    });
    verdicts.collect()
}

/// The verdicts on `tests/python/test_tasks.py::name` or one of its cases. Of what is skipped pytest names the file
/// alone: nothing in that file counts then.
fn of_pytest(test: &str, log: &str) -> Vec<bool> {
    let verdicts = log.lines().filter_map(|line| {
        let (word, rest) = line.split_once(' ')?;
        if word == "SKIPPED" {
            let (file, _) = rest.split_once("] ")?.1.split_once(':')?;
            return test.starts_with(&format!("{file}::")).then_some(false);
        }
        let tail = rest.strip_prefix(test).filter(|tail| tail.is_empty() || tail.starts_with(['[', ' ']))?;
        let is_verdict = ["PASSED", "FAILED", "ERROR", "XFAIL", "XPASS"].contains(&word);
        is_verdict.then_some(word == "PASSED" && !tail.starts_with(' '))
    });
    verdicts.collect()
}
