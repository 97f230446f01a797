//! Texts that are in Celery's grammar, and texts that are not.

use celeriac::schedule::{Crontab, Field, Fields, exception};
use fastrand::Rng;
use serde_json::{Value, json};

use crate::judge::{Answer, ask};
use crate::{cases, random, seed};

const FIELDS: [(&str, Field); 5] = [
    ("minute", Field::Minute),
    ("hour", Field::Hour),
    ("day_of_week", Field::DayOfWeek),
    ("day_of_month", Field::DayOfMonth),
    ("month_of_year", Field::MonthOfYear),
];

#[test]
fn texts_mean_what_they_mean_to_celery_or_are_refused_in_its_words() {
    let mut rng = Rng::with_seed(seed());
    let texts: Vec<(usize, String)> =
        (0..cases(12_000)).map(|_| (rng.usize(0..FIELDS.len()), random::text(&mut rng))).collect();
    let question = |(field, text): &(usize, String)| json!({"ask": "parse", "field": FIELDS[*field].0, "text": text});
    let Some(answers) = ask(texts.iter().map(question).collect()) else { return };
    let mut refused = 0;
    for ((field, text), answer) in texts.iter().zip(answers) {
        let ours = parsed(FIELDS[*field].1, text);
        refused += usize::from(matches!(ours, Answer::Raised(..)));
        assert_eq!(ours, answer, "seed {}, {} {text:?}", seed(), FIELDS[*field].0);
    }
    assert!((texts.len() / 4..texts.len() * 9 / 10).contains(&refused), "{refused} of {} were refused", texts.len());
}

fn parsed(field: Field, text: &str) -> Answer {
    match field.parse(text) {
        Ok(numbers) => Answer::Gave(Value::from(numbers)),
        Err(error) => raised(&error),
    }
}

pub(crate) fn raised(error: &celeriac::Error) -> Answer {
    let (name, words) = exception(error).expect("Celery has an exception for it");
    Answer::Raised(name.to_owned(), words)
}

/// `from_string` and what it is shown as.
#[test]
fn lines_are_read_as_celery_reads_them() {
    let lines = [
        "* * * * *",
        "*/15 8-17 * * mon-fri",
        "0 0 29 2 *",
        "0 0 30 2 *",
        "0 0 30,31 feb *",
        "0 0 31 4,6,9,11 *",
        "0 0 * *",
        "0 0 * * * *",
        "0  0 * * *",
        "0\t0 * * *",
        "",
        " 0 0 * * *",
        "60 24 0 0 7",
        "@daily",
        "5 4 * * sun",
        "x 25 * * *",
    ];
    let Some(answers) = ask(lines.iter().map(|line| json!({"ask": "from_string", "text": line})).collect()) else {
        return;
    };
    for (line, answer) in lines.iter().zip(answers) {
        let ours = Crontab::parse(line)
            .map_or_else(|error| raised(&error), |crontab| Answer::Gave(crontab.to_string().into()));
        assert_eq!(ours, answer, "{line:?}");
    }
}

/// Meant: Celery finds out at the first look, with a `ValueError` of `max()`.
#[test]
fn an_empty_list_is_refused() {
    let error = Crontab::new(Fields { minute: Vec::new().into(), ..Fields::default() }).unwrap_err();
    assert_eq!(error.to_string(), "read the crontab `[] * * * *`: Invalid crontab pattern.  A list is empty.");
}
