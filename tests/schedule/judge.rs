//! The judge: Celery's own schedules, in one Python process that answers many questions.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use serde_json::Value;

/// What the judge says to each question, in their order. `None`, and a word about it, where Celery is not installed.
pub(crate) fn ask(questions: Vec<Value>) -> Option<Vec<Answer>> {
    let mut judge = Command::new(python()?)
        .args(["-c", include_str!("judge.py")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the judge starts");
    let mut input = judge.stdin.take().expect("its input is a pipe");
    let count = questions.len();
    // It answers while it is asked: neither may wait for the other.
    let asking = thread::spawn(move || {
        for question in questions {
            writeln!(input, "{question}").expect("the judge listens");
        }
    });
    let output = BufReader::new(judge.stdout.take().expect("its output is a pipe"));
    let answers: Vec<Answer> = output.lines().map(|line| Answer::read(&line.expect("it is text"))).collect();
    asking.join().expect("all was asked");
    assert!(judge.wait().expect("the judge ends").success(), "the judge failed: its words are above");
    assert_eq!(answers.len(), count, "each question has its answer");
    Some(answers)
}

/// What Celery answered, or the exception that it raised.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    Gave(Value),
    Raised(String, String),
}

impl Answer {
    fn read(line: &str) -> Answer {
        let value: Value = serde_json::from_str(line).expect("an answer is JSON");
        match value.get("raised") {
            Some(raised) => {
                let text = |at: usize| raised[at].as_str().expect("a name and words").to_owned();
                Answer::Raised(text(0), text(1))
            }
            None => Answer::Gave(value["answer"].clone()),
        }
    }
}

fn python() -> Option<PathBuf> {
    let installed = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".build/venv/bin/python");
    let python = std::env::var_os("CELERIAC_TEST_PYTHON").map_or(installed, PathBuf::from);
    if !python.exists() {
        // Not `eprintln`, which is shown for failing tests alone.
        let _ = writeln!(
            std::io::stderr(),
            "skipped: {} is not installed: scripts/setup.sh does it, and CELERIAC_TEST_PYTHON names another",
            python.display()
        );
        return None;
    }
    Some(python)
}
