//! The table of features. `tests/features.toml` says what there is and which tests prove it; README shows it.

use std::collections::HashSet;
use std::path::Path;

use serde::Deserialize;

use crate::proofs;
use crate::rules::missing;

/// What stands before and after the table in README.
const MARKERS: [&str; 2] = ["<!-- features: written by `make table` -->\n\n", "\n<!-- /features -->\n"];
const STOCK: &[&str] = &["yes", "partly", "no"];
const CELERIAC: &[&str] = &["yes", "partly", "no", "not yet"];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Features {
    area: Vec<Area>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Area {
    name: String,
    feature: Vec<Feature>,
}

/// A row of the table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Feature {
    name: String,
    stock: String,
    celeriac: String,
    tests: Vec<String>,
}

impl Features {
    pub(crate) fn read(text: &str) -> Self {
        toml::from_str(text).unwrap_or_else(|error| panic!("{error}"))
    }

    fn rows(&self) -> impl Iterator<Item = &Feature> {
        self.area.iter().flat_map(|area| &area.feature)
    }

    /// How many rows there are, and by how many tests they are proved.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let tests: HashSet<_> = self.rows().flat_map(|row| &row.tests).collect();
        (self.rows().count(), tests.len())
    }

    /// The table, with its markers.
    fn table(&self) -> String {
        let mut lines = vec!["| | Celery 5.7 | Celeriac |".to_owned(), "|---|---|---|".to_owned()];
        for area in &self.area {
            lines.push(format!("| **{}** | | |", area.name));
            let rows = area.feature.iter();
            lines.extend(rows.map(|row| format!("| {} | {} | {} |", row.name, row.stock, row.celeriac)));
        }
        format!("{}{}\n{}", MARKERS[0], lines.join("\n"), MARKERS[1])
    }

    /// The page with the table in its place.
    pub(crate) fn put_into(&self, page: &str) -> Option<String> {
        let (before, rest) = page.split_once(MARKERS[0])?;
        let (_, after) = rest.split_once(MARKERS[1])?;
        Some(format!("{before}{}{after}", self.table()))
    }

    /// What is wrong with the rows: what they say, or that no tests prove it, or that these do not exist.
    pub(crate) fn problems(&self, root: &Path) -> Vec<String> {
        let mut names = HashSet::new();
        let twice = self.rows().filter(|row| !names.insert(&row.name)).map(|row| format!("{}: twice", row.name));
        twice.chain(self.rows().flat_map(|row| row.problems(root))).collect()
    }

    /// Tests that did not run or did not pass, by what `cargo test` and `pytest -rap` said.
    pub(crate) fn unproved(&self, cargo: &str, pytest: &str) -> Vec<String> {
        let tests = self.rows().flat_map(|row| row.tests.iter().map(move |test| (row, test)));
        let unproved = tests.filter(|(_, test)| !proofs::passed(test, cargo, pytest));
        unproved.map(|(row, test)| format!("{}: `{test}` did not run, or did not pass", row.name)).collect()
    }
}

impl Feature {
    fn problems(&self, root: &Path) -> Vec<String> {
        let says = |text: &str, words: &[&str]| words.contains(&text.split(": ").next().unwrap_or(text));
        let mut problems = Vec::new();
        if !says(&self.stock, STOCK) || !says(&self.celeriac, CELERIAC) {
            problems.push(format!("neither yes nor no: `{}`, `{}`", self.stock, self.celeriac));
        }
        if [&self.name, &self.stock, &self.celeriac].iter().any(|cell| cell.contains(['|', '\n'])) {
            problems.push("does not fit into a table".to_owned());
        }
        if self.tests.is_empty() {
            problems.push("no test proves it".to_owned());
        }
        problems.extend(self.tests.iter().filter_map(|test| {
            let function = test.split('[').next().filter(|name| name.contains("::"));
            function.map_or_else(|| Some(format!("`{test}` is no test")), |name| missing(name, root))
        }));
        problems.into_iter().map(|problem| format!("{}: {problem}", self.name)).collect()
    }
}
