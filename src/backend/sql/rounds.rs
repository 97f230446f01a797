//! [`rounds`]: a statement writes each row once; what a batch has of one task is put together, or waits for the next.

use std::collections::HashMap;

use super::table::{Cell, Row, Table};
use crate::backend::rules::is_early;
use crate::protocol::State;

/// Rows in rounds that have no key twice, and to the same end as one by one.
pub(super) fn rounds(table: &Table, rows: Vec<Row>) -> Vec<Vec<Row>> {
    let mut rounds = vec![Vec::new()];
    let mut places: HashMap<String, usize> = HashMap::new();
    for row in rows {
        let round = rounds.last_mut().expect("there is always one");
        let Some(place) = places.get(key_of(&row)).copied() else {
            places.insert(key_of(&row).to_owned(), round.len());
            round.push(row);
            continue;
        };
        match meeting(table, &round[place], &row) {
            Meeting::Replaces => round[place] = table.over(&round[place], row),
            Meeting::Yields => {}
            Meeting::Waits => {
                places = HashMap::from([(key_of(&row).to_owned(), 0)]);
                rounds.push(vec![row]);
            }
        }
    }
    rounds
}

fn key_of(row: &Row) -> &str {
    match &row[0] {
        Cell::Text(key) => key,
        _ => "",
    }
}

/// What becomes of a row when there is one of its task already.
enum Meeting {
    Replaces,
    Yields,
    Waits,
}

fn meeting(table: &Table, before: &Row, after: &Row) -> Meeting {
    let (Some(before), Some(after)) = (table.state_of(before), table.state_of(after)) else { return Meeting::Replaces };
    match before {
        State::Success => Meeting::Yields,
        _ if !is_early(&after) || is_early(&before) => Meeting::Replaces,
        State::Failure | State::Revoked => Meeting::Yields,
        // A RETRY before a STARTED, say: over a FAILURE that is stored the two together come to something else.
        _ => Meeting::Waits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::rules::overwrites;
    use crate::backend::sql::{Column, Kind};

    /// Over whatever is stored, rounds come to the same as the rows one by one.
    #[test]
    fn rounds_come_to_the_same_as_one_by_one() {
        const STATES: [&str; 6] = ["STARTED", "RETRY", "FAILURE", "SUCCESS", "REVOKED", "PROGRESS"];
        let table = Table {
            name: "t".into(),
            columns: vec![Column::new("task_id", Kind::Text), Column::new("status", Kind::Text)],
            state: Some(1),
            sequence: None,
            creation: None,
        };
        let row = |state: &str| vec![Cell::Text("a".into()), Cell::Text(state.into())];
        let stored_by = |rows: &[Row], mut stored: Option<State>| {
            for state in rows.iter().filter_map(|row| table.state_of(row)) {
                if stored.as_ref().is_none_or(|stored| overwrites(stored, &state)) {
                    stored = Some(state);
                }
            }
            stored
        };
        for number in 0..6usize.pow(4) {
            let states = (0..4).map(|place| STATES[number / 6usize.pow(place) % 6]);
            let rows: Vec<Row> = states.map(row).collect();
            let rounds = rounds(&table, rows.clone());
            assert!(rounds.iter().all(|round| round.len() == 1), "{rounds:?}");
            for stored in [None, Some("PENDING")].into_iter().chain(STATES.map(Some)) {
                let stored = stored.map(State::from);
                assert_eq!(
                    stored_by(&rounds.concat(), stored.clone()),
                    stored_by(&rows, stored.clone()),
                    "{rows:?} over {stored:?}"
                );
            }
        }
    }
}
