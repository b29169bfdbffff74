//! The matcher for Python.

use std::cell::RefCell;
use std::sync::Arc;

use pyo3::exceptions::{PyKeyError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};

use super::decision::{Context, Decision, kind};
use super::errors;
use super::table::Table;
use super::text::bytes_of;
use crate::ahead::Ahead;
use crate::decide::{Match, Outcome, Policy, Verdict, Walker, Watch, reference, surt_of};
use crate::table;

thread_local! {
    static WALKER: RefCell<Walker> = RefCell::default();
}

/// What a matcher and its decisions share.
pub struct Core {
    pub table: Arc<table::Table>,
    pub policies: Vec<Policy>,
}

/// A table with policies: (name, [(list, mode)], verdict for what is no URL). See `blocker.Matcher`.
#[pyclass(frozen, subclass)]
pub struct Matcher {
    core: Arc<Core>,
    /// The answer to nearly every question, made once.
    allow: Py<Decision>,
}

/// Name, (list, mode) in order, verdict for what is no URL.
type PolicyFields = (String, Vec<(String, String)>, String);

fn policy((name, modes, on_invalid): PolicyFields, table: &table::Table) -> PyResult<Policy> {
    let mut policy = Policy { name, block_invalid: on_invalid == "block", ..Policy::default() };
    for (list, mode) in modes {
        let Some(at) = table.lists().iter().position(|info| info.name == list) else {
            continue;
        };
        let bit = 1_u64 << at;
        match (mode.as_str(), table.lists()[at].allow) {
            ("enforce", true) => policy.allow |= bit,
            ("enforce", false) => policy.block |= bit,
            ("shadow", true) => {}
            ("shadow", false) => policy.shadow |= bit,
            _ => return Err(PyValueError::new_err("a list's mode is enforce or shadow")),
        }
        policy.order.push(at as u8);
    }
    Ok(policy)
}

impl Matcher {
    /// What it decides with.
    pub fn core(&self) -> Arc<Core> {
        Arc::clone(&self.core)
    }

    /// The number of a policy. Raises `KeyError`.
    pub fn policy(&self, name: &str) -> PyResult<usize> {
        let known = self.core.policies.iter().position(|policy| policy.name == name);
        known.ok_or_else(|| PyKeyError::new_err("no policy of that name"))
    }

    #[inline]
    fn answer(&self, py: Python<'_>, policy: usize, verdict: Verdict, outcome: Outcome) -> PyResult<Py<Decision>> {
        if verdict == Verdict::Allow && outcome.winner.is_none() && outcome.shadow == 0 {
            return Ok(self.allow.clone_ref(py));
        }
        let context = Some(Context { core: Arc::clone(&self.core), policy });
        Py::new(py, Decision { verdict, outcome, context, invalid: false })
    }

    fn invalid(&self, py: Python<'_>, policy: usize) -> PyResult<Py<Decision>> {
        let verdict = if self.core.policies[policy].block_invalid { Verdict::Block } else { Verdict::Allow };
        Py::new(py, Decision { verdict, outcome: Outcome::default(), context: None, invalid: true })
    }

    fn decide_one(&self, walker: &mut Walker, policy: usize, url: &Bound<'_, PyAny>) -> PyResult<Py<Decision>> {
        let bytes = bytes_of(url)?;
        match walker.decide(&self.core.table, &self.core.policies[policy], &bytes) {
            Ok(outcome) => self.answer(url.py(), policy, outcome.verdict(), outcome),
            Err(_) => self.invalid(url.py(), policy),
        }
    }
}

#[pymethods]
impl Matcher {
    #[new]
    fn new(py: Python<'_>, table: &Bound<'_, Table>, policies: Vec<PolicyFields>) -> PyResult<Self> {
        let table = Arc::clone(&table.get().0);
        let policies = policies.into_iter().map(|fields| policy(fields, &table)).collect::<PyResult<_>>()?;
        let allow = Decision { verdict: Verdict::Allow, outcome: Outcome::default(), context: None, invalid: false };
        Ok(Self { core: Arc::new(Core { table, policies }), allow: Py::new(py, allow)? })
    }

    /// Decides one URL: `block` or `allow`, never `inspect`. What is no URL gets the policy's verdict for that.
    ///
    /// Raises `KeyError`: no policy of that name. Cost: under a microsecond; linear in the URL's length.
    #[pyo3(signature = (url, policy="default"))]
    fn decide(&self, url: &Bound<'_, PyAny>, policy: &str) -> PyResult<Py<Decision>> {
        let policy = self.policy(policy)?;
        WALKER.with_borrow_mut(|walker| self.decide_one(walker, policy, url))
    }

    /// Decides a sequence of URLs, in order.
    #[pyo3(signature = (urls, policy="default"))]
    fn decide_many<'py>(&self, urls: &Bound<'py, PyAny>, policy: &str) -> PyResult<Bound<'py, PyList>> {
        let policy = self.policy(policy)?;
        let py = urls.py();
        if urls.is_instance_of::<PyString>() {
            return Err(pyo3::exceptions::PyTypeError::new_err("expected a sequence of URLs, not one URL"));
        }
        // Taken out, not borrowed: iterating may run Python code that decides by itself.
        let mut walker = WALKER.take();
        let answers = match urls.cast::<PyList>() {
            Ok(urls) => {
                let mut ahead = Ahead::default();
                let mut look = |at: usize| {
                    if let Some(url) = urls.get_item(at).ok().as_ref().and_then(|url| url.cast::<PyString>().ok())
                        && let Ok(url) = url.to_str()
                    {
                        ahead.look(&self.core.table, url.as_bytes());
                    }
                };
                look(1);
                let decided = |(at, url)| {
                    look(at + 2);
                    self.decide_one(&mut walker, policy, &url)
                };
                urls.iter().enumerate().map(decided).collect()
            }
            Err(_) => {
                urls.try_iter()?.map(|url| self.decide_one(&mut walker, policy, &url?)).collect::<PyResult<Vec<_>>>()
            }
        };
        WALKER.set(walker);
        PyList::new(py, answers?)
    }

    /// What is known of a host before its URLs are seen.
    ///
    /// `block`: everything there is blocked and no exception is below; `inspect`: a path rule of an enforced list may apply; else
    /// `allow`.
    #[pyo3(signature = (host, policy="default"))]
    fn decide_host(&self, host: &Bound<'_, PyAny>, policy: &str) -> PyResult<Py<Decision>> {
        let policy = self.policy(policy)?;
        let (py, bytes) = (host.py(), bytes_of(host)?);
        let decided =
            WALKER.with_borrow_mut(|walker| walker.decide_host(&self.core.table, &self.core.policies[policy], &bytes));
        match decided {
            Ok((verdict, outcome)) => self.answer(py, policy, verdict, outcome),
            Err(_) => self.invalid(py, policy),
        }
    }

    /// Every step of a decision: canonical, surt, steps (prefix, found, matches), verdict, winner. A match of which only a
    /// digest was compared says `hashed`.
    ///
    /// Raises `InvalidURL`. Shows the URL: for people who asked, never for logs.
    #[pyo3(signature = (url, policy="default"))]
    fn explain<'py>(&self, url: &Bound<'py, PyAny>, policy: &str) -> PyResult<Bound<'py, PyDict>> {
        let policy = self.policy(policy)?;
        let (py, bytes) = (url.py(), bytes_of(url)?);
        let mut walker = Walker::default();
        let mut steps = Steps::default();
        let decided = walker.watch(&self.core.table, &self.core.policies[policy], &bytes, &mut steps);
        let outcome = decided.map_err(|error| errors::invalid_url(py, &error))?;
        let explanation = PyDict::new(py);
        explanation.set_item("canonical", walker.url().text())?;
        explanation.set_item("surt", surt_of(walker.url()))?;
        explanation.set_item("steps", steps.into_python(py, &self.core, policy)?)?;
        explanation.set_item("verdict", outcome.verdict().name())?;
        let winner = outcome.winner.map(|found| listed(py, &self.core, policy, &found)).transpose()?;
        explanation.set_item("winner", winner.and_then(|rows| rows.into_iter().next()))?;
        Ok(explanation)
    }

    /// The table it decides with.
    #[getter]
    fn table(&self) -> Table {
        Table(Arc::clone(&self.core.table))
    }

    /// Names of its policies.
    #[getter]
    fn policies<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.core.policies.iter().map(|policy| policy.name.as_str()))
    }
}

/// Keeps every step of a walk for `explain`.
#[derive(Default)]
struct Steps(Vec<(String, bool, Vec<Match>)>);

impl Watch for Steps {
    fn probed(&mut self, prefix: &dyn Fn() -> Vec<u8>, node: Option<usize>) {
        self.0.push((String::from_utf8_lossy(&prefix()).into_owned(), node.is_some(), Vec::new()));
    }

    fn matched(&mut self, found: &Match) {
        if let Some(step) = self.0.last_mut() {
            step.2.push(*found);
        }
    }
}

impl Steps {
    fn into_python<'py>(self, py: Python<'py>, core: &Core, policy: usize) -> PyResult<Bound<'py, PyList>> {
        let steps = PyList::empty(py);
        for (prefix, found, matches) in self.0 {
            let step = PyDict::new(py);
            step.set_item("prefix", prefix)?;
            step.set_item("found", found)?;
            let mut rows = Vec::new();
            for found in &matches {
                rows.extend(listed(py, core, policy, found)?);
            }
            step.set_item("matches", rows)?;
            steps.append(step)?;
        }
        Ok(steps)
    }
}

/// A match, once for each list of the policy that has it.
fn listed<'py>(py: Python<'py>, core: &Core, policy: usize, found: &Match) -> PyResult<Vec<Bound<'py, PyDict>>> {
    let policy = &core.policies[policy];
    let mut rows = Vec::new();
    for list in policy.order.iter().map(|&bit| usize::from(bit)).filter(|bit| found.lists >> bit & 1 == 1) {
        let info = &core.table.lists()[list];
        let row = PyDict::new(py);
        row.set_item("list", &info.name)?;
        row.set_item("action", if info.allow { "allow" } else { "block" })?;
        row.set_item("mode", if policy.shadow >> list & 1 == 1 { "shadow" } else { "enforce" })?;
        row.set_item("kind", kind(py, found.kind().name())?)?;
        row.set_item("serial", info.serial)?;
        row.set_item("reference", reference(&core.table, found, list))?;
        if found.hashed {
            row.set_item("hashed", true)?;
        }
        rows.push(row);
    }
    Ok(rows)
}
