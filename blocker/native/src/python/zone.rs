//! Response policy zones for Python: built, compared and written without the GIL.

use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::lists::{RuleSet, hex};
use crate::wire::transfer::{self, Messages, Part, Records};
use crate::zone;

/// The names of a zone and what it says of each: 1 blocked, 2 to be inspected, 3 passed, 0 nothing.
#[pyclass(frozen)]
pub struct Zone(Arc<zone::Zone>);

#[pymethods]
impl Zone {
    /// The zone of lists, each as rules, whether they are exceptions, and whether `www.h` and `h` are one host.
    ///
    /// `origin_bytes` is the length of the zone's name on the wire. An inspect zone has the hosts of which only the full URL can
    /// tell, otherwise it has those that are blocked whole. Without the GIL; about 1 µs a rule.
    #[staticmethod]
    #[pyo3(signature = (lists, origin_bytes, *, inspect=false))]
    fn build(
        py: Python<'_>,
        lists: Vec<(Bound<'_, RuleSet>, bool, bool)>,
        origin_bytes: usize,
        inspect: bool,
    ) -> PyResult<Self> {
        let shared: Vec<_> =
            lists.iter().map(|(rules, ..)| RuleSet::shared(rules)).collect::<PyResult<Vec<PyRef<'_, RuleSet>>>>()?;
        let sources: Vec<_> = shared
            .iter()
            .zip(&lists)
            .map(|(rules, &(_, allow, www_alias))| zone::Source { rules: rules.ordered(), allow, www_alias })
            .collect();
        let built = py.detach(|| zone::Zone::build(&sources, origin_bytes, inspect));
        Ok(Self(Arc::new(built)))
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }

    /// Owner names with each effect, wildcards counted.
    #[getter]
    fn counts(&self) -> [usize; zone::EFFECTS] {
        self.0.counts()
    }

    /// Rules that DNS cannot say: on addresses, digests, names that do not fit.
    #[getter]
    fn left_out(&self) -> (u64, u64, u64) {
        let left_out = self.0.left_out;
        (left_out.addresses, left_out.digests, left_out.names)
    }

    /// SHA-256 of what it says, hex. Without the GIL.
    fn digest(&self, py: Python<'_>) -> String {
        hex(&py.detach(|| self.0.digest()))
    }

    /// At most `count` names from a position on: the name, what is said of it, what of every name below it.
    fn names(&self, start: usize, count: usize) -> Vec<(String, u8, u8)> {
        let named = (start..self.0.len()).take(count).filter_map(|at| self.0.get(at));
        named.map(|named| (dotted(named.key), named.own as u8, named.below as u8)).collect()
    }

    /// It as bytes, to be kept; what was left out is not in them. Without the GIL.
    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let bytes = py.detach(|| self.0.to_bytes());
        PyBytes::new(py, &bytes)
    }

    /// The zone of such bytes. Without the GIL. Raises `ValueError`: they are none.
    #[staticmethod]
    fn from_bytes(py: Python<'_>, bytes: &[u8]) -> PyResult<Self> {
        let read = py.detach(|| zone::Zone::from_bytes(bytes));
        let read =
            read.map_err(|at| PyValueError::new_err(format!("byte {at}: no name of a zone, or out of order")))?;
        Ok(Self(Arc::new(read)))
    }

    /// What must change in this zone to get `newer`. Without the GIL.
    fn diff(&self, py: Python<'_>, newer: &Bound<'_, Self>) -> ZoneDelta {
        let newer = newer.get();
        let delta = py.detach(|| zone::Delta::between(&self.0, &newer.0));
        ZoneDelta::of(delta)
    }
}

fn dotted(key: &[u8]) -> String {
    let labels: Vec<_> = key.rsplit(|&byte| byte == 0).map(String::from_utf8_lossy).collect();
    labels.join(".")
}

/// What changed between two versions of a zone.
#[pyclass(frozen)]
pub struct ZoneDelta {
    removed: Arc<zone::Zone>,
    added: Arc<zone::Zone>,
}

impl ZoneDelta {
    fn of(delta: zone::Delta) -> Self {
        Self { removed: Arc::new(delta.removed), added: Arc::new(delta.added) }
    }

    fn delta(&self) -> zone::Delta {
        zone::Delta { removed: (*self.removed).clone(), added: (*self.added).clone() }
    }
}

#[pymethods]
impl ZoneDelta {
    /// Owner names that come or go.
    fn __len__(&self) -> usize {
        let said = |zone: &zone::Zone| zone.counts()[1..].iter().sum::<usize>();
        said(&self.removed) + said(&self.added)
    }

    /// The change that takes away what `removed` says and says what `added` does.
    #[staticmethod]
    fn of_parts(removed: &Bound<'_, Zone>, added: &Bound<'_, Zone>) -> Self {
        Self { removed: removed.get().0.clone(), added: added.get().0.clone() }
    }

    /// This change and the next one as one. Without the GIL.
    fn then(&self, py: Python<'_>, next: &Bound<'_, Self>) -> Self {
        let next = next.get();
        Self::of(py.detach(|| self.delta().then(&next.delta())))
    }

    /// What is no longer said.
    #[getter]
    fn removed(&self) -> Zone {
        Zone(self.removed.clone())
    }

    /// What is said now.
    #[getter]
    fn added(&self) -> Zone {
        Zone(self.added.clone())
    }
}

#[derive(FromPyObject)]
enum PartOf {
    Top((u16, u32, Vec<u8>)),
    Names(Py<Zone>),
}

/// A zone transfer, message by message.
///
/// `origin` is the zone's name on the wire, `question_type` the type asked for. `records` says for each effect from 1 on its
/// records as type, TTL and data; `parts` what is sent, in order: a record of the zone's top likewise, or names.
#[pyclass]
pub struct ZoneMessages(Messages);

#[pymethods]
impl ZoneMessages {
    #[new]
    fn new(
        id: u16,
        flags: u16,
        origin: Vec<u8>,
        question_type: u16,
        records: [Vec<(u16, u32, Vec<u8>)>; zone::EFFECTS - 1],
        parts: Vec<PartOf>,
    ) -> PyResult<Self> {
        if origin.len() > zone::MAX_NAME || origin.last() != Some(&0) {
            return Err(PyValueError::new_err("origin is a name on the wire"));
        }
        let written = |(kind, ttl, data): (u16, u32, Vec<u8>)| transfer::record(kind, ttl, &data);
        let mut by_effect = Records::default();
        for (place, said) in by_effect[1..].iter_mut().zip(records) {
            *place = said.into_iter().map(written).collect();
        }
        let parts = parts.into_iter().map(|part| match part {
            PartOf::Top(record) => Part::Top(written(record)),
            PartOf::Names(zone) => Part::Names(zone.get().0.clone()),
        });
        let question = [question_type.to_be_bytes(), 1u16.to_be_bytes()].concat();
        Ok(Self(Messages::new(id, flags, origin, question, Arc::new(by_effect), parts.collect())))
    }

    /// The next message, of at most `limit` bytes; None when all is written. Without the GIL.
    fn next<'py>(&mut self, py: Python<'py>, limit: usize) -> Option<Bound<'py, PyBytes>> {
        let mut out = Vec::with_capacity(limit);
        let more = py.detach(|| self.0.next(limit, &mut out));
        more.then(|| PyBytes::new(py, &out))
    }
}
