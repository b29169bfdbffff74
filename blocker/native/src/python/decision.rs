//! `Decision`: what the matcher said about one URL or host.

use std::sync::Arc;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyTuple};

use super::matcher::Core;
use crate::batch::Decided;
use crate::decide::{self, Outcome, Verdict};

/// What a decision needs to name lists; absent where nothing matched.
pub struct Context {
    pub core: Arc<Core>,
    pub policy: usize,
}

/// What the matcher said about one URL or host. Neither true nor false: compare its `verdict`.
#[pyclass(frozen)]
pub struct Decision {
    pub verdict: Verdict,
    pub outcome: Outcome,
    pub context: Option<Context>,
    /// Whether the text was no URL.
    #[pyo3(get)]
    pub invalid: bool,
}

impl Decision {
    fn list_index(&self) -> Option<(&Core, usize)> {
        let context = self.context.as_ref()?;
        let list = context.core.policies[context.policy].first(self.outcome.winner?.lists)?;
        Some((&context.core, list))
    }

    /// The named list of a `block`, for counting.
    pub fn hit(&self) -> Option<&str> {
        let (core, list) = self.list_index().filter(|_| self.verdict == Verdict::Block)?;
        Some(&core.table.lists()[list].name)
    }

    /// Names of the shadow lists that would block, in the policy's order.
    pub fn shadows(&self) -> impl Iterator<Item = &str> {
        let context = self.context.as_ref().filter(|_| self.outcome.shadow != 0);
        context.into_iter().flat_map(|context| {
            let order = &context.core.policies[context.policy].order;
            let hit = order.iter().filter(|&&bit| self.outcome.shadow >> bit & 1 == 1);
            hit.map(|&bit| context.core.table.lists()[usize::from(bit)].name.as_str())
        })
    }
}

#[pymethods]
impl Decision {
    /// allow, inspect or block.
    #[getter]
    fn verdict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        verdict(py, self.verdict)
    }

    /// The list that blocks, or the list of exceptions that lets through; None where no rule decides.
    #[getter]
    fn list(&self) -> Option<&str> {
        let (core, list) = self.list_index()?;
        Some(&core.table.lists()[list].name)
    }

    /// Kind of the rule that decides.
    #[getter]
    fn kind<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.outcome.winner.map(|winner| kind(py, winner.kind().name())).transpose()
    }

    /// Serial of that list.
    #[getter]
    fn serial(&self) -> Option<u64> {
        let (core, list) = self.list_index()?;
        Some(core.table.lists()[list].serial)
    }

    /// The authority's reference of that rule, if it has one.
    #[getter]
    fn reference(&self) -> Option<&str> {
        let (core, list) = self.list_index()?;
        decide::reference(&core.table, &self.outcome.winner?, list)
    }

    /// Shadow lists that would block by themselves, the enforced exceptions in force.
    #[getter]
    fn shadow<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.shadows().collect::<Vec<_>>())
    }

    /// It as a JSON object, with the canonical form that the caller knows. Cost: about 0.2 µs.
    #[pyo3(signature = (canonical, /))]
    fn json<'py>(&self, py: Python<'py>, canonical: Option<&str>) -> Bound<'py, PyBytes> {
        let context = self.context.as_ref();
        let outcome =
            context.map(|context| (&*context.core.table, &context.core.policies[context.policy], &self.outcome));
        let mut out = Vec::new();
        Decided { verdict: self.verdict, outcome, canonical, invalid: self.invalid }.write(&mut out);
        PyBytes::new(py, &out)
    }

    #[allow(clippy::unused_self)] // the protocol's signature
    fn __bool__(&self) -> PyResult<bool> {
        Err(PyTypeError::new_err("a Decision is neither true nor false; compare its verdict"))
    }

    fn __repr__(&self) -> String {
        let list = self.list().map_or_else(|| "None".to_owned(), |list| format!("'{list}'"));
        format!("Decision(verdict='{}', list={list})", self.verdict.name())
    }
}

/// The member of `blocker.rules.Verdict`; looked up once per process.
fn verdict(py: Python<'_>, verdict: Verdict) -> PyResult<Bound<'_, PyAny>> {
    static MEMBERS: PyOnceLock<[Py<PyAny>; 3]> = PyOnceLock::new();
    let members = MEMBERS.get_or_try_init(py, || {
        let class = py.import("blocker.rules")?.getattr("Verdict")?;
        let member = |verdict: Verdict| PyResult::Ok(class.call1((verdict.name(),))?.unbind());
        PyResult::Ok([member(Verdict::Allow)?, member(Verdict::Inspect)?, member(Verdict::Block)?])
    })?;
    Ok(members[verdict as usize].bind(py).clone())
}

/// The member of `blocker.rules.Kind`.
pub fn kind<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    static CLASS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let class = CLASS.get_or_try_init(py, || PyResult::Ok(py.import("blocker.rules")?.getattr("Kind")?.unbind()))?;
    class.bind(py).call1((name,))
}
