//! The gate: decides and counts for codecs, with no Python between request and answer.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use xxhash_rust::xxh3::xxh3_64;

use super::matcher::{Core, Matcher};
use crate::ahead::Ahead;
use crate::decide::{Outcome, Verdict, Walker};
use crate::hits::TableHits;
use crate::wire::{Answer, Decide, Page};

/// Decisions since the last `take`: allow, inspect, blocks, invalid, nanoseconds of all but blocks, histogram of those.
type Counts = (u64, u64, u64, u64, u64, Vec<u64>);

/// One gateway's way to verdicts and the place where it counts them. It keeps nothing of a request.
#[pyclass]
pub struct Gate {
    policy: String,
    bounds: Vec<u64>,
    core: Option<(Arc<Core>, usize)>,
    tag: String,
    walker: Walker,
    ahead: Ahead,
    canaries: HashSet<String>,
    pages: HashMap<String, Vec<Rendered>>,
    counts: Counts,
    /// By list of the present table.
    hits: TableHits,
}

/// The stop page in one language.
struct Rendered {
    language: String,
    head: Vec<u8>,
    body: Vec<u8>,
}

/// What a text is; see [`Decide`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Url,
    Host,
    Alias,
}

/// List, language, header lines, HTML.
type PageBytes = (String, String, Vec<u8>, Vec<u8>);

fn by_list(pages: Vec<PageBytes>) -> HashMap<String, Vec<Rendered>> {
    let mut found: HashMap<String, Vec<Rendered>> = HashMap::new();
    for (list, language, head, body) in pages {
        found.entry(list).or_default().push(Rendered { language, head, body });
    }
    found
}

#[pymethods]
impl Gate {
    /// `bounds`: upper bounds of the histogram, in nanoseconds; `pages`: (list, language, header lines, HTML), the list
    /// empty for the page of no list in particular; the first language of a list is its default.
    #[new]
    fn new(policy: String, bounds: Vec<u64>, pages: Vec<PageBytes>) -> Self {
        let buckets = vec![0; bounds.len() + 1];
        Self {
            policy,
            bounds,
            core: None,
            tag: "none".to_owned(),
            walker: Walker::default(),
            ahead: Ahead::default(),
            canaries: HashSet::new(),
            pages: by_list(pages),
            counts: (0, 0, 0, 0, 0, buckets),
            hits: TableHits::default(),
        }
    }

    /// Decides with this matcher from now on; hits counted so far are handed back: (list, shadow, count).
    ///
    /// Raises `KeyError`: the matcher has no policy of the gate's name.
    #[pyo3(name = "use")]
    fn use_matcher(&mut self, matcher: &Bound<'_, Matcher>) -> PyResult<Vec<(String, bool, u64)>> {
        let core = matcher.get().core();
        let policy = matcher.get().policy(&self.policy)?;
        let counted = self.take_hits();
        let serials: Vec<String> =
            core.table.lists().iter().map(|list| format!("{} {} {}", list.name, list.serial, list.metadata)).collect();
        self.tag = format!("{:016x}", xxh3_64(serials.join("\n").as_bytes()));
        self.hits = TableHits::of(core.table.lists().len());
        self.core = Some((core, policy));
        Ok(counted)
    }

    /// Decides by another policy, and shows other pages, from the next `use` on, which must follow at once.
    fn configure(&mut self, policy: String, pages: Vec<PageBytes>) {
        self.policy = policy;
        self.pages = by_list(pages);
    }

    /// Canonical forms whose blocks are neither hits nor decisions.
    fn canaries(&mut self, canaries: HashSet<String>) {
        self.canaries = canaries;
    }

    /// Takes the hits counted so far: (list, shadow, count).
    fn take_hits(&mut self) -> Vec<(String, bool, u64)> {
        self.core.as_ref().map_or_else(Vec::new, |(core, _)| self.hits.take(&core.table))
    }

    /// Takes the decisions counted so far: allow, inspect, blocks, invalid, nanoseconds, histogram.
    fn take_counts(&mut self) -> Counts {
        let empty = (0, 0, 0, 0, 0, vec![0; self.bounds.len() + 1]);
        std::mem::replace(&mut self.counts, empty)
    }

    /// What changes whenever an answer may have changed.
    #[getter(tag)]
    fn tag_text(&self) -> &str {
        &self.tag
    }

    /// The stop page as codecs send it: header lines and HTML.
    #[pyo3(name = "page")]
    fn page_of<'py>(
        &self,
        py: Python<'py>,
        list: &str,
        accept_language: &[u8],
    ) -> (Bound<'py, PyBytes>, Bound<'py, PyBytes>) {
        let page = self.page(list, accept_language);
        (PyBytes::new(py, page.head), PyBytes::new(py, page.body))
    }
}

impl Gate {
    fn decide(&mut self, text: &[u8], what: What) -> Option<Answer<'_>> {
        let (core, index) = self.core.as_ref()?;
        let policy = &core.policies[*index];
        let started = Instant::now();
        let decided = match what {
            What::Url => self.walker.decide(&core.table, policy, text).map(|outcome| (outcome.verdict(), outcome)),
            What::Host | What::Alias => self.walker.decide_host(&core.table, policy, text),
        };
        let elapsed = started.elapsed().as_nanos() as u64;
        let invalid = decided.is_err();
        // Who asks cannot help where a name leads.
        let on_invalid = if policy.block_invalid && what != What::Alias { Verdict::Block } else { Verdict::Allow };
        let (verdict, outcome) = decided.unwrap_or((on_invalid, Outcome::default()));
        let list = outcome.winner.and_then(|winner| policy.first(winner.lists));
        let spared = (verdict == Verdict::Block || outcome.shadow != 0)
            && !self.canaries.is_empty()
            && !invalid
            && self.canaries.contains(self.walker.url().text());
        if what == What::Alias && verdict != Verdict::Block {
            self.hits.add(None, if spared { 0 } else { outcome.shadow });
        } else if !spared {
            let (allow, inspect, blocks, bad, nanoseconds, buckets) = &mut self.counts;
            match verdict {
                Verdict::Block => *blocks += 1,
                Verdict::Allow => *allow += 1,
                Verdict::Inspect => *inspect += 1,
            }
            *bad += u64::from(invalid);
            if verdict == Verdict::Block {
                self.hits.add(list, outcome.shadow);
            } else {
                self.hits.add(None, outcome.shadow);
                *nanoseconds += elapsed;
                buckets[self.bounds.partition_point(|&bound| bound < elapsed)] += 1;
            }
        }
        let name = list.map_or("", |list| core.table.lists()[list].name.as_str());
        Some(Answer { verdict, list: name })
    }
}

impl Decide for Gate {
    fn url(&mut self, url: &[u8]) -> Option<Answer<'_>> {
        self.decide(url, What::Url)
    }

    fn ahead(&mut self, text: &[u8]) {
        if let Some((core, _)) = &self.core {
            self.ahead.look(&core.table, text);
        }
    }

    fn host(&mut self, host: &[u8]) -> Option<Answer<'_>> {
        self.decide(host, What::Host)
    }

    fn alias(&mut self, host: &[u8]) -> Option<Answer<'_>> {
        self.decide(host, What::Alias)
    }

    fn page(&self, list: &str, accept_language: &[u8]) -> Page<'_> {
        let pages = self.pages.get(list).or_else(|| self.pages.get(""));
        let page = pages.and_then(|pages| {
            let wanted = crate::wire::language::best(accept_language, &pages.iter().map(|page| page.language.as_str()));
            pages.get(wanted)
        });
        page.map_or(Page { head: b"Content-Length: 0\r\n", body: b"" }, |page| Page {
            head: &page.head,
            body: &page.body,
        })
    }

    fn tag(&self) -> &str {
        &self.tag
    }
}
