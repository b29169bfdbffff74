//! The table for Python.

use std::fs::File;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;

use memmap2::Mmap;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use super::errors;
use super::lists::{NodeRun, lookup_key};
use crate::merge;
use crate::node::LookupKey;
use crate::run::Fold;
use crate::segment::{Segment, SegmentError};
use crate::table::{self, ListInfo, TableError};

/// Name, serial, whether it allows, metadata.
type Listed = (String, u64, bool, String);
type WithRun<'py> = (String, u64, bool, String, Bound<'py, NodeRun>);
type WithSegments<'py> = (String, u64, bool, String, Vec<Vec<SegmentSource<'py>>>);

/// A segment in memory, or the file that holds it.
#[derive(FromPyObject)]
enum SegmentSource<'py> {
    Bytes(Bound<'py, PyBytes>),
    File(PathBuf),
}

/// A segment's bytes, wherever they are.
enum SegmentBytes<'a> {
    Memory(&'a [u8]),
    Mapped(Mmap),
}

impl SegmentSource<'_> {
    fn open(&self) -> Result<SegmentBytes<'_>, TableError> {
        match self {
            Self::Bytes(bytes) => Ok(SegmentBytes::Memory(bytes.as_bytes())),
            Self::File(path) => map(path).map(SegmentBytes::Mapped),
        }
    }
}

fn open_all<'a>(layer: &'a [SegmentBytes<'a>], key: &LookupKey) -> Result<Vec<Segment<'a>>, SegmentError> {
    let open = |source: &'a SegmentBytes<'a>| match source {
        SegmentBytes::Memory(bytes) => Segment::open(bytes, key),
        SegmentBytes::Mapped(map) => Segment::mapped(map, key),
    };
    layer.iter().map(open).collect()
}

fn raise(py: Python<'_>, error: TableError) -> PyErr {
    match error {
        TableError::Io(error) => error.into(),
        other => errors::format_error(py, &other),
    }
}

/// All lists of a node as one immutable block of memory, made here or mapped from a file.
#[pyclass(frozen)]
pub struct Table(pub Arc<table::Table>);

/// The open file of a descriptor of the caller's, by a descriptor of its own.
fn borrowed(descriptor: i32) -> Result<File, TableError> {
    if descriptor < 0 {
        return Err(TableError::Io(std::io::Error::from_raw_os_error(9))); // EBADF
    }
    // SAFETY: it is only duplicated, which fails for one that is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
    Ok(File::from(borrowed.try_clone_to_owned()?))
}

#[pymethods]
impl Table {
    /// Merges (name, serial, allow, metadata, run) of each list. Raises `FormatError` on more than 64 lists.
    #[staticmethod]
    fn build(py: Python<'_>, lists: Vec<WithRun<'_>>, lookup_key: &[u8]) -> PyResult<Self> {
        let key = self::lookup_key(lookup_key)?;
        let mut infos = Vec::with_capacity(lists.len());
        let mut runs = Vec::with_capacity(lists.len());
        for (name, serial, allow, metadata, run) in &lists {
            infos.push(ListInfo { name: name.clone(), serial: *serial, allow: *allow, metadata: metadata.clone() });
            runs.push(run.get());
        }
        let built = py.detach(|| {
            let encoded: Vec<Vec<Vec<u8>>> = runs.iter().map(|run| run.run.segments(&run.key, usize::MAX)).collect();
            let mut opened = Vec::with_capacity(encoded.len());
            for segments in &encoded {
                let layer = segments.iter().map(|bytes| Segment::open(bytes, &key)).collect::<Result<_, _>>()?;
                opened.push(vec![layer]);
            }
            merge_lists(infos, &opened, &key)
        });
        built.map(|table| Self(Arc::new(table))).map_err(|error| raise(py, error))
    }

    /// Merges lists given by their layers of segments, each `bytes` or the path of a file. Without the GIL.
    ///
    /// Needs memory for the new table and one segment. Raises `FormatError`: a segment is damaged, of another version or key, or
    /// there are more than 64 lists; `OSError`: a file cannot be read.
    #[staticmethod]
    fn merge(py: Python<'_>, lists: Vec<WithSegments<'_>>, lookup_key: &[u8]) -> PyResult<Self> {
        let key = self::lookup_key(lookup_key)?;
        let mut infos = Vec::with_capacity(lists.len());
        let mut sources: Vec<Vec<Vec<SegmentBytes<'_>>>> = Vec::with_capacity(lists.len());
        for (name, serial, allow, metadata, layers) in &lists {
            infos.push(ListInfo { name: name.clone(), serial: *serial, allow: *allow, metadata: metadata.clone() });
            let opened =
                layers.iter().map(|layer| layer.iter().map(SegmentSource::open).collect()).collect::<Result<_, _>>();
            sources.push(opened.map_err(|error| raise(py, error))?);
        }
        // The sources go in, so that what is mapped is given back without the GIL too.
        let merged = py.detach(move || {
            let sources = sources;
            let mut opened = Vec::with_capacity(sources.len());
            for layers in &sources {
                opened.push(layers.iter().map(|layer| open_all(layer, &key)).collect::<Result<_, _>>()?);
            }
            merge_lists(infos, &opened, &key)
        });
        merged.map(|table| Self(Arc::new(table))).map_err(|error| raise(py, error))
    }

    /// Maps a table file, about 0.4 ms a MiB the first time.
    ///
    /// Raises `FormatError`: it is damaged, of another version or key; names what was expected and found, and the remedy.
    /// `OSError`: it cannot be read.
    #[staticmethod]
    fn open(py: Python<'_>, path: PathBuf, lookup_key: &[u8]) -> PyResult<Self> {
        let key = self::lookup_key(lookup_key)?;
        let opened = py.detach(|| table::Table::open(&path, &key));
        opened.map(|table| Self(Arc::new(table))).map_err(|error| raise(py, error))
    }

    /// Maps the open file of a descriptor, which may be closed afterwards; raises as `open`.
    #[staticmethod]
    fn map(py: Python<'_>, descriptor: i32, lookup_key: &[u8]) -> PyResult<Self> {
        let key = self::lookup_key(lookup_key)?;
        let opened = py.detach(|| table::Table::map(&borrowed(descriptor)?, &key));
        opened.map(|table| Self(Arc::new(table))).map_err(|error| raise(py, error))
    }

    /// Writes the table to the empty open file of a descriptor, about 0.3 ms a MiB. Raises `OSError`.
    fn write(&self, py: Python<'_>, descriptor: i32) -> PyResult<()> {
        py.detach(|| self.0.write(&mut borrowed(descriptor)?)).map_err(|error| raise(py, error))
    }

    /// Writes the table beside `path`, syncs it and renames it. Raises `OSError`; the old file stays then.
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        py.detach(|| self.0.save(&path)).map_err(|error| raise(py, error))
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }

    /// Size in memory and on disk.
    #[getter]
    fn bytes(&self) -> usize {
        self.0.bytes()
    }

    /// (name, serial, allow, metadata) of each list, in the order of the mask bits.
    #[getter]
    fn lists<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let list = |info: &ListInfo| -> Listed { (info.name.clone(), info.serial, info.allow, info.metadata.clone()) };
        PyTuple::new(py, self.0.lists().iter().map(list))
    }
}

/// Maps a segment file. An empty file cannot be mapped, but no segment is empty.
fn map(path: &std::path::Path) -> Result<Mmap, TableError> {
    let file = std::fs::File::open(path)?;
    // SAFETY: segment files are renamed into place whole and never changed afterwards, as tables are.
    Ok(unsafe { Mmap::map(&file)? })
}

fn merge_lists(
    infos: Vec<ListInfo>,
    lists: &[Vec<Vec<Segment<'_>>>],
    key: &LookupKey,
) -> Result<table::Table, TableError> {
    let segments = || lists.iter().flatten().flatten();
    let most = segments().map(Segment::len).sum();
    let depth = segments().map(Segment::depth).max().unwrap_or(0) as usize;
    let folds = lists.iter().map(|layers| Fold::new(layers)).collect::<Result<_, _>>()?;
    merge::merge(infos, folds, most, depth, key)
}
