//! Lists from Python: lines, rule sets and node runs.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::errors;
use super::text::bytes_of;
use crate::canonical::Canonical;
use crate::node::{KEY_BYTES, LookupKey};
use crate::rule::{self, Format, Kind, Options, Rule, RuleError};
use crate::segment::Segment;
use crate::{lines, ruleset, run};

/// Kind, host, path, query, subdomains.
type Fields = (&'static str, String, Option<String>, Option<String>, bool);
/// [`Fields`], reference, metadata.
type Listed = (&'static str, String, Option<String>, Option<String>, bool, String, String);

pub fn lookup_key(key: &[u8]) -> PyResult<LookupKey> {
    let key: &[u8; KEY_BYTES] = key
        .try_into()
        .map_err(|_| PyValueError::new_err(format!("a lookup key has {KEY_BYTES} bytes, not {}", key.len())))?;
    Ok(LookupKey::new(key))
}

fn text(bytes: &[u8]) -> String {
    // Canonical fields are ASCII.
    String::from_utf8_lossy(bytes).into_owned()
}

fn fields(rule: &Rule<'_>) -> Fields {
    let path = (!rule.path.is_empty()).then(|| text(rule.path));
    (rule.kind.name(), text(rule.host), path, rule.query.map(text), rule.subdomains)
}

fn kind(py: Python<'_>, name: &str, allowed: &[Kind]) -> PyResult<Kind> {
    Kind::from_name(name).filter(|kind| allowed.contains(kind)).ok_or_else(|| {
        let names: Vec<_> = allowed.iter().map(|kind| kind.name()).collect();
        errors::invalid_rule(py, &format!("kind must be one of {}", names.join(", ")))
    })
}

fn options(py: Python<'_>, format: &str, bare: &str, trailing_slash: &str, domain_kind: &str) -> PyResult<Options> {
    let format = match format {
        "url" => Format::Url,
        "domain" => Format::Domain,
        "hosts" => Format::Hosts,
        _ => {
            return Err(errors::invalid_rule(py, "format must be one of url, domain, hosts"));
        }
    };
    Ok(Options {
        format,
        bare: kind(py, bare, &[Kind::Host, Kind::Domain])?,
        trailing_slash: kind(py, trailing_slash, &[Kind::Prefix, Kind::Exact])?,
        name: kind(py, domain_kind, &[Kind::Domain, Kind::Host])?,
    })
}

/// The canonical fields of a rule: kind, host, path, query, subdomains. Raises `InvalidRule`.
#[pyfunction]
pub fn canonical_rule(
    py: Python<'_>,
    kind: &str,
    host: &str,
    path: Option<&str>,
    query: Option<&str>,
    subdomains: bool,
) -> PyResult<Fields> {
    let kind = self::kind(py, kind, &Kind::ALL)?;
    let mut url = Canonical::default();
    let (path, query) = (path.map(str::as_bytes), query.map(str::as_bytes));
    rule::from_fields(kind, host.as_bytes(), path, query, subdomains, &mut url)
        .map(|rule| fields(&rule))
        .map_err(|error| errors::invalid_rule(py, &error))
}

/// The canonical fields of the one rule in a line; see `blocker.Rule.parse`. Raises `InvalidRule`.
#[pyfunction]
pub fn parse_rule(
    line: &Bound<'_, PyAny>,
    format: &str,
    bare: &str,
    trailing_slash: &str,
    domain_kind: &str,
) -> PyResult<Fields> {
    let py = line.py();
    let options = options(py, format, bare, trailing_slash, domain_kind)?;
    let line = bytes_of(line)?;
    let line = line.trim_ascii();
    let mut found = Vec::new();
    let parsed = if memchr::memchr2(b'\n', 0, line).is_some() {
        Err(RuleError("a rule is one line of text"))
    } else {
        rule::parse_line(line, options, &mut Canonical::default(), &mut |rule| found.push(fields(&rule)))
    };
    parsed.map_err(|error| errors::invalid_rule(py, &error))?;
    let only = found.pop().ok_or_else(|| errors::invalid_rule(py, "line holds no rule"))?;
    if found.is_empty() { Ok(only) } else { Err(errors::invalid_rule(py, "line holds more than one rule")) }
}

/// Reads a list line by line from chunks split anywhere; whole, byte-by-byte and any split give the same.
///
/// `format` is `url`, `domain` or `hosts`; `bare`, `trailing_slash` and `domain_kind` as in `blocker.Rule.parse`. Lines
/// longer than `max_line_bytes` are bad and are not kept; the first `max_errors` bad lines are reported, all are counted.
#[pyclass]
pub struct LineParser(lines::LineParser);

#[pymethods]
impl LineParser {
    #[new]
    #[pyo3(signature = (format, *, bare="host", trailing_slash="prefix", domain_kind="domain", max_line_bytes=65_536, max_errors=1000))]
    fn new(
        py: Python<'_>,
        format: &str,
        bare: &str,
        trailing_slash: &str,
        domain_kind: &str,
        max_line_bytes: usize,
        max_errors: usize,
    ) -> PyResult<Self> {
        let options = options(py, format, bare, trailing_slash, domain_kind)?;
        Ok(Self(lines::LineParser::new(options, max_line_bytes, max_errors)))
    }

    /// Reads a chunk without the GIL. Raises `FormatError` on a NUL byte: the input is no text.
    fn feed(&mut self, py: Python<'_>, data: &[u8]) -> PyResult<()> {
        py.detach(|| self.0.feed(data)).map_err(|binary| errors::format_error(py, &binary))
    }

    /// Reads what stands after the last line end; the rules, in order and without repeats.
    fn finish(&mut self, py: Python<'_>) -> RuleSet {
        RuleSet { set: py.detach(|| self.0.finish().finish()), pending: ruleset::Builder::default() }
    }

    /// Lines read.
    #[getter]
    fn lines(&self) -> u64 {
        self.0.lines()
    }

    /// Rules found, repeated ones counted.
    #[getter]
    fn rules(&self) -> usize {
        self.0.rules()
    }

    /// Lines that are no rules.
    #[getter]
    fn bad(&self) -> u64 {
        self.0.bad()
    }

    /// The first bad lines: number, from 1, and reason. Never holds their text.
    #[getter]
    fn errors(&self) -> Vec<(u64, &'static str)> {
        self.0.errors().to_vec()
    }
}

/// A list's rules in clear text, in canonical order and without repeats, held compactly outside Python.
///
/// Iterating gives (kind, host, path, query, subdomains, reference, metadata). Of rules that differ in reference or metadata
/// only, one stays.
#[pyclass]
#[derive(Default)]
pub struct RuleSet {
    set: ruleset::RuleSet,
    /// Rules added since the set was last put in order.
    pending: ruleset::Builder,
}

impl RuleSet {
    fn settled(&mut self, py: Python<'_>) -> &ruleset::RuleSet {
        if !self.pending.is_empty() {
            let pending = std::mem::take(&mut self.pending);
            py.detach(|| self.set = self.set.patched(&pending.finish(), &ruleset::RuleSet::default()));
        }
        &self.set
    }

    /// The set in order, for reading; the same object may be borrowed more than once.
    pub fn shared<'py>(set: &Bound<'py, Self>) -> PyResult<PyRef<'py, Self>> {
        if let Ok(mut unsettled) = set.try_borrow_mut() {
            unsettled.settled(set.py());
        }
        Ok(set.try_borrow()?)
    }

    /// The rules, once `shared` has put them in order.
    pub fn ordered(&self) -> &ruleset::RuleSet {
        &self.set
    }

    fn of(set: ruleset::RuleSet) -> Self {
        Self { set, pending: ruleset::Builder::default() }
    }
}

#[pymethods]
impl RuleSet {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Adds one rule from its fields. Raises `InvalidRule`. `metadata` is JSON text or empty.
    #[pyo3(signature = (kind, host, path=None, query=None, subdomains=false, reference="", metadata=""))]
    #[allow(clippy::too_many_arguments)] // the fields of a rule
    fn add(
        &mut self,
        py: Python<'_>,
        kind: &str,
        host: &str,
        path: Option<&str>,
        query: Option<&str>,
        subdomains: bool,
        reference: &str,
        metadata: &str,
    ) -> PyResult<()> {
        let kind = self::kind(py, kind, &Kind::ALL)?;
        let mut url = Canonical::default();
        let (path, query) = (path.map(str::as_bytes), query.map(str::as_bytes));
        let rule = rule::from_fields(kind, host.as_bytes(), path, query, subdomains, &mut url)
            .map_err(|error| errors::invalid_rule(py, &error))?;
        let control = |text: &str| text.bytes().any(|byte| byte < b' ');
        if control(reference) || control(metadata) || reference.len() > 255 {
            return Err(errors::invalid_rule(py, "reference or metadata is too long or holds control characters"));
        }
        self.pending.push(&rule, reference, metadata);
        Ok(())
    }

    fn __len__(&mut self, py: Python<'_>) -> usize {
        self.settled(py).len()
    }

    fn __iter__(mut slf: PyRefMut<'_, Self>) -> RuleIterator {
        let py = slf.py();
        slf.settled(py);
        RuleIterator { set: slf.into(), at: 0 }
    }

    /// The text form: one rule a line, sorted; equal sets have equal text.
    fn dump<'py>(&mut self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.settled(py).text())
    }

    /// Reads a text form. Raises `FormatError` naming the damaged line by its number.
    #[staticmethod]
    fn load(py: Python<'_>, data: &[u8]) -> PyResult<Self> {
        let set = py.detach(|| ruleset::RuleSet::load(data.to_vec()));
        set.map(Self::of).map_err(|error| errors::format_error(py, &error))
    }

    /// SHA-256 of the text form, hex.
    fn digest(&mut self, py: Python<'_>) -> String {
        self.settled(py);
        hex(&py.detach(|| self.set.digest()))
    }

    /// What `newer` has and lacks, compared to this: (added, removed). Without the GIL.
    fn diff(slf: &Bound<'_, Self>, newer: &Bound<'_, Self>) -> PyResult<(Self, Self)> {
        let py = slf.py();
        let (old, new) = (Self::shared(slf)?, Self::shared(newer)?);
        let (old, new) = (&old.set, &new.set);
        let (added, removed) = py.detach(|| old.diff(new));
        Ok((Self::of(added), Self::of(removed)))
    }

    /// This set without `removed` and with `added`. Without the GIL.
    fn patched(slf: &Bound<'_, Self>, added: &Bound<'_, Self>, removed: &Bound<'_, Self>) -> PyResult<Self> {
        let py = slf.py();
        let (old, added, removed) = (Self::shared(slf)?, Self::shared(added)?, Self::shared(removed)?);
        let (old, added, removed) = (&old.set, &added.set, &removed.set);
        Ok(Self::of(py.detach(|| old.patched(added, removed))))
    }

    /// The rules of this set that `other` has too, whatever their reference and metadata. Without the GIL.
    fn common(slf: &Bound<'_, Self>, other: &Bound<'_, Self>) -> PyResult<Self> {
        let py = slf.py();
        let (own, other) = (Self::shared(slf)?, Self::shared(other)?);
        let (own, other) = (&own.set, &other.set);
        Ok(Self::of(py.detach(|| own.common(other))))
    }

    /// Every rule that may match a URL, whatever the list's options, and few others. Raises `InvalidURL`. Without the GIL;
    /// a search for each label of the host.
    fn near(&mut self, py: Python<'_>, url: &Bound<'_, PyAny>) -> PyResult<Self> {
        let mut canonical = Canonical::default();
        canonical.set(&bytes_of(url)?).map_err(|error| errors::invalid_url(py, &error))?;
        let set = self.settled(py);
        Ok(Self::of(py.detach(|| set.near(&canonical))))
    }

    /// Hosts with at least `least` path rules, and how many each has. Without the GIL.
    #[pyo3(signature = (least=1))]
    fn path_hosts(&mut self, py: Python<'_>, least: usize) -> Vec<(String, usize)> {
        let set = self.settled(py);
        py.detach(|| set.path_hosts(least).into_iter().map(|(host, paths)| (text(host), paths)).collect())
    }

    /// The rules as trie nodes under a 16-byte lookup key. Without the GIL; about 1 µs a rule.
    ///
    /// `www_alias`: `www.h` and `h` are one host. `fold_case`: the ASCII case of path and query is folded.
    #[pyo3(signature = (lookup_key, *, www_alias=false, fold_case=false))]
    fn nodes(&mut self, py: Python<'_>, lookup_key: &[u8], www_alias: bool, fold_case: bool) -> PyResult<NodeRun> {
        let key = self::lookup_key(lookup_key)?;
        self.settled(py);
        let set = &self.set;
        let run = py.detach(|| run::NodeRun::build(set, &key, run::Options { www_alias, fold_case }));
        Ok(NodeRun { run, key })
    }
}

/// Iterates over a `RuleSet`.
#[pyclass]
pub struct RuleIterator {
    set: Py<RuleSet>,
    at: usize,
}

#[pymethods]
impl RuleIterator {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&mut self, py: Python<'_>) -> Option<Listed> {
        let set = self.set.borrow(py);
        let entry = set.set.get(self.at)?;
        self.at += 1;
        let (kind, host, path, query, subdomains) = fields(&entry.rule);
        Some((kind, host, path, query, subdomains, entry.reference.to_owned(), entry.metadata.to_owned()))
    }
}

/// A list as a sorted run of trie nodes: keyed ids, what ends or continues there, references.
#[pyclass(frozen)]
pub struct NodeRun {
    pub run: run::NodeRun,
    pub key: LookupKey,
}

#[pymethods]
impl NodeRun {
    fn __len__(&self) -> usize {
        self.run.len()
    }

    /// SHA-256 over all nodes, hex; the same however they are cut into segments and layers.
    fn digest(&self, py: Python<'_>) -> String {
        hex(&py.detach(|| self.run.digest()))
    }

    /// The run as segments of about `max_bytes` each, at least one.
    #[pyo3(signature = (max_bytes=4_194_304))]
    fn segments<'py>(&self, py: Python<'py>, max_bytes: usize) -> Vec<Bound<'py, PyBytes>> {
        let segments = py.detach(|| self.run.segments(&self.key, max_bytes));
        segments.iter().map(|bytes| PyBytes::new(py, bytes)).collect()
    }

    /// Folds layers, oldest first, each a list of segments in order. Without the GIL.
    ///
    /// Raises `FormatError`: a segment is damaged, of another version, or of another lookup key.
    #[staticmethod]
    fn from_segments(py: Python<'_>, layers: Vec<Vec<Bound<'_, PyBytes>>>, lookup_key: &[u8]) -> PyResult<Self> {
        let key = self::lookup_key(lookup_key)?;
        let layers: Vec<Vec<&[u8]>> =
            layers.iter().map(|layer| layer.iter().map(PyBytesMethods::as_bytes).collect()).collect();
        let run = py.detach(|| {
            let mut opened = Vec::with_capacity(layers.len());
            for layer in &layers {
                opened.push(layer.iter().map(|bytes| Segment::open(bytes, &key)).collect::<Result<_, _>>()?);
            }
            run::NodeRun::fold(&opened)
        });
        run.map(|run| Self { run, key }).map_err(|error| errors::format_error(py, &error))
    }

    /// What must be laid over this run to get `newer`: changed nodes, and tombstones for those that left.
    fn diff(&self, py: Python<'_>, newer: &Bound<'_, Self>) -> Self {
        let newer = newer.get();
        Self { run: py.detach(|| self.run.diff(&newer.run)), key: self.key.clone() }
    }
}

pub fn hex(digest: &[u8]) -> String {
    use std::fmt::Write as _;
    digest.iter().fold(String::with_capacity(digest.len() * 2), |mut out, byte| {
        write!(out, "{byte:02x}").expect("writing to memory does not fail");
        out
    })
}
