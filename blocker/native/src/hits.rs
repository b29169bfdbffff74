//! The hit matrix: counts per list, weekday and hour since the last drain, and nothing else about any request.

use std::collections::HashMap;

use crate::table::Table;

/// Cells of one list: weekday (Monday first) × hour.
pub const CELLS: usize = 7 * 24;

/// Counts of one process. The caller says which cell is open and until when, so time zones stay outside.
#[derive(Default)]
pub struct HitMatrix {
    open: Option<Window>,
    rows: HashMap<String, Row>,
}

#[derive(Clone, Copy)]
struct Window {
    start: f64,
    end: f64,
    cell: usize,
}

struct Row {
    enforced: [u64; CELLS],
    shadow: [u64; CELLS],
}

/// One drained cell.
#[derive(Debug, PartialEq, Eq)]
pub struct Cell {
    /// The list.
    pub list: String,
    /// Whether these are a shadow list's hits.
    pub shadow: bool,
    /// 1 (Monday) to 7.
    pub weekday: u8,
    /// 0 to 23.
    pub hour: u8,
    /// How many.
    pub count: u64,
}

impl HitMatrix {
    /// Opens the cell for `start ≤ now < end`, in seconds; weekday 1 to 7, hour 0 to 23. False if those are out of range.
    pub fn window(&mut self, start: f64, end: f64, weekday: u8, hour: u8) -> bool {
        let valid = (1..=7).contains(&weekday) && hour < 24;
        if valid {
            let cell = usize::from(weekday - 1) * 24 + usize::from(hour);
            self.open = Some(Window { start, end, cell });
        }
        valid
    }

    /// The open cell, if `now` is in it.
    pub fn cell(&self, now: f64) -> Option<usize> {
        self.open.filter(|window| window.start <= now && now < window.end).map(|window| window.cell)
    }

    /// Adds one hit. Cost: one hash of the name; memory is one row per list ever named.
    pub fn add(&mut self, list: &str, shadow: bool, cell: usize) {
        if !self.rows.contains_key(list) {
            self.rows.insert(list.to_owned(), Row { enforced: [0; CELLS], shadow: [0; CELLS] });
        }
        if let Some(row) = self.rows.get_mut(list) {
            let counts = if shadow { &mut row.shadow } else { &mut row.enforced };
            counts[cell] += 1;
        }
    }

    /// Takes all counts that are not zero.
    pub fn drain(&mut self) -> Vec<Cell> {
        let mut cells = Vec::new();
        for (list, row) in &mut self.rows {
            for (shadow, counts) in [(false, &mut row.enforced), (true, &mut row.shadow)] {
                for (cell, count) in counts.iter_mut().enumerate().filter(|(_, count)| **count > 0) {
                    let (weekday, hour) = (cell as u8 / 24 + 1, cell as u8 % 24);
                    cells.push(Cell { list: list.clone(), shadow, weekday, hour, count: std::mem::take(count) });
                }
            }
        }
        cells
    }
}

/// Hits by list of one table, hits and shadow hits, where no hour ends between two takings.
#[derive(Default)]
pub struct TableHits(Vec<[u64; 2]>);

impl TableHits {
    /// All zero, for a table of so many lists.
    pub fn of(lists: usize) -> Self {
        Self(vec![[0; 2]; lists])
    }

    /// Counts the named list of a block, and each list in a mask of shadow hits.
    pub fn add(&mut self, blocking: Option<usize>, mut shadow: u64) {
        if let Some(list) = blocking {
            self.0[list][0] += 1;
        }
        while shadow != 0 {
            self.0[shadow.trailing_zeros() as usize][1] += 1;
            shadow &= shadow - 1;
        }
    }

    /// Takes all counts that are not zero: (list, shadow, count).
    pub fn take(&mut self, table: &Table) -> Vec<(String, bool, u64)> {
        let mut taken = Vec::new();
        for (list, counts) in table.lists().iter().zip(&mut self.0) {
            for (shadow, count) in [false, true].into_iter().zip(counts) {
                if *count > 0 {
                    taken.push((list.name.clone(), shadow, std::mem::take(count)));
                }
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_fall_into_the_open_cell_and_leave_once() {
        let mut hits = HitMatrix::default();
        assert_eq!(hits.cell(5.0), None);
        assert!(!hits.window(0.0, 10.0, 8, 0));
        assert!(hits.window(0.0, 10.0, 7, 23));
        assert_eq!((hits.cell(0.0), hits.cell(10.0)), (Some(167), None));
        hits.add("a", false, 167);
        hits.add("a", false, 167);
        let cell = Cell { list: "a".to_owned(), shadow: false, weekday: 7, hour: 23, count: 2 };
        assert_eq!(hits.drain(), vec![cell]);
        assert_eq!(hits.drain(), vec![]);
    }
}
