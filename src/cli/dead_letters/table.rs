//! [`Table`]: columns that stand under each other.

use std::fmt;

/// Longer cells are cut: who wants all of one asks for the letter, or for JSON.
const WIDEST: usize = 60;

/// Rows of cells under a heading.
pub(super) struct Table<const COLUMNS: usize> {
    rows: Vec<[String; COLUMNS]>,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    pub(super) fn new(heading: [&str; COLUMNS]) -> Self {
        Table { rows: vec![heading.map(str::to_owned)] }
    }

    pub(super) fn push(&mut self, row: [String; COLUMNS]) {
        self.rows.push(row.map(|cell| shown(&cell)));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }
}

impl<const COLUMNS: usize> fmt::Display for Table<COLUMNS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; COLUMNS] = std::array::from_fn(width);
        for row in &self.rows {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
            writeln!(f, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// One line without control characters, which would act on the terminal.
fn shown(cell: &str) -> String {
    let clean = |letter: char| if letter.is_control() { ' ' } else { letter };
    match cell.chars().nth(WIDEST) {
        None => cell.chars().map(clean).collect(),
        Some(_) => cell.chars().take(WIDEST - 1).map(clean).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other() {
        let mut table = Table::new(["ID", "TASK"]);
        assert!(table.is_empty());
        table.push(["é".to_owned(), "a\nb\x1b[1m".to_owned()]);
        table.push(["longer".to_owned(), "x".repeat(100)]);
        let expected = format!("ID      TASK\né       a b [1m\nlonger  {}…\n", "x".repeat(59));
        assert_eq!(table.to_string(), expected);
    }
}
