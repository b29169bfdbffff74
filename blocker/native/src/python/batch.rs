//! Batches for Python: a JSON document read, decided, counted and answered in the core.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::matcher::Matcher;
use super::text::bytes_of;
use crate::ahead::Ahead;
use crate::batch::{self, Decided};
use crate::decide::{Outcome, Verdict, Walker};
use crate::hits::TableHits;

/// JSON objects with commas between them, decisions that were no blocks, blocks, texts that are no URL, and hits: (list,
/// shadow, count).
type Answered<'py> = (Bound<'py, PyBytes>, u64, u64, u64, Vec<(String, bool, u64)>);

/// URLs that are decided together.
#[pyclass(frozen)]
pub struct Batch(batch::Batch);

#[pymethods]
impl Batch {
    /// Texts as they are.
    #[new]
    fn new(urls: Vec<Bound<'_, PyAny>>) -> PyResult<Self> {
        let mut batch = batch::Batch::default();
        for url in &urls {
            batch.push(&bytes_of(url)?);
        }
        Ok(Self(batch))
    }

    /// Reads `{"urls": [text, ...], "policy": name}`.
    ///
    /// Raises `ValueError`, which says nothing of it: it is anything else.
    #[staticmethod]
    fn read(document: &[u8]) -> PyResult<Self> {
        batch::Batch::read(document).map(Self).ok_or_else(|| PyValueError::new_err("no batch of URLs"))
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }

    /// The policy's name, if the document gave one.
    #[getter]
    fn policy(&self) -> Option<&str> {
        self.0.policy.as_deref()
    }

    /// Decides the URLs from `start` to before `stop` and counts them; those of `canaries`, canonical forms, are answered and
    /// not counted.
    ///
    /// Raises `KeyError`: no policy of that name. Cost: about 0.3 µs a URL.
    fn answer<'py>(
        &self,
        matcher: &Bound<'py, Matcher>,
        policy: &str,
        canaries: &Bound<'py, PyAny>,
        start: usize,
        stop: usize,
    ) -> PyResult<Answered<'py>> {
        let number = matcher.get().policy(policy)?;
        let core = matcher.get().core();
        let (table, policy) = (&*core.table, &core.policies[number]);
        let any_canaries = canaries.is_truthy()?;
        let (mut walker, mut ahead) = (Walker::default(), Ahead::default());
        let (mut passed, mut blocks, mut invalid) = (0, 0, 0);
        let mut hits = TableHits::of(table.lists().len());
        let mut out = Vec::with_capacity(stop.min(self.0.len()).saturating_sub(start) * USUAL_BYTES);
        let mut look = |at: usize| {
            if let Some(url) = self.0.url(at) {
                ahead.look(table, url);
            }
        };
        look(start + 1);
        for at in start..stop {
            let Some(url) = self.0.url(at) else { break };
            look(at + 2);
            let found = walker.decide(table, policy, url);
            let is_url = found.is_ok();
            let on_invalid = if policy.block_invalid { Verdict::Block } else { Verdict::Allow };
            let (verdict, outcome) =
                found.map_or((on_invalid, Outcome::default()), |outcome| (outcome.verdict(), outcome));
            if at > start {
                out.push(b',');
            }
            let listed = outcome.winner.is_some() || outcome.shadow != 0;
            let canonical = is_url.then(|| walker.url().text());
            let told = listed.then_some((table, policy, &outcome));
            Decided { verdict, outcome: told, canonical, invalid: !is_url }.write(&mut out);
            let looked_at = any_canaries && (verdict == Verdict::Block || outcome.shadow != 0);
            if let Some(canonical) = canonical.filter(|_| looked_at)
                && canaries.contains(canonical)?
            {
                continue;
            }
            invalid += u64::from(!is_url);
            if verdict == Verdict::Block {
                blocks += 1;
                hits.add(outcome.winner.and_then(|winner| policy.first(winner.lists)), outcome.shadow);
            } else {
                passed += 1;
                hits.add(None, outcome.shadow);
            }
        }
        let counted = hits.take(table);
        Ok((PyBytes::new(matcher.py(), &out), passed, blocks, invalid, counted))
    }
}

/// What an answer to a URL usually has, comma and all.
const USUAL_BYTES: usize = 192;
