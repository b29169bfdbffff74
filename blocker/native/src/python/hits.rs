//! The hit matrix for Python.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::decision::Decision;
use crate::hits;

/// Counts per list, weekday and hour since the last drain. The caller opens the cell; time zones stay outside.
#[pyclass]
#[derive(Default)]
pub struct HitMatrix(hits::HitMatrix);

#[pymethods]
impl HitMatrix {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Opens a cell for `start <= now < end`, Unix seconds; weekday 1 (Monday) to 7, hour 0 to 23.
    fn window(&mut self, start: f64, end: f64, weekday: u8, hour: u8) -> PyResult<()> {
        if self.0.window(start, end, weekday, hour) {
            Ok(())
        } else {
            Err(PyValueError::new_err("weekday must be 1 to 7 and hour 0 to 23"))
        }
    }

    /// Counts the named list of a block, and each shadow list. False, and nothing counted, outside the window.
    fn count(&mut self, decision: &Bound<'_, Decision>, now: f64) -> bool {
        let Some(cell) = self.0.cell(now) else {
            return false;
        };
        let decision = decision.get();
        if let Some(list) = decision.hit() {
            self.0.add(list, false, cell);
        }
        for list in decision.shadows() {
            self.0.add(list, true, cell);
        }
        true
    }

    /// Takes all counts that are not zero: (list, shadow, weekday, hour, count).
    fn drain(&mut self) -> Vec<(String, bool, u8, u8, u64)> {
        self.0.drain().into_iter().map(|cell| (cell.list, cell.shadow, cell.weekday, cell.hour, cell.count)).collect()
    }
}
