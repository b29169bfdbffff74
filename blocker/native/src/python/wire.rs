//! One connection of a gateway for Python: bytes in, bytes out.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::gate::Gate;
use crate::decide::Verdict;
use crate::wire::{Codec, Flow, http, icap, spop, squid};

/// A codec with its gate.
struct Session<C> {
    codec: C,
    gate: Py<Gate>,
    output: Vec<u8>,
    closing: bool,
}

impl<C: Codec> Session<C> {
    fn new(codec: C, gate: Py<Gate>) -> Self {
        Self { codec, gate, output: Vec::new(), closing: false }
    }

    fn feed<'py>(&mut self, py: Python<'py>, data: &[u8]) -> Bound<'py, PyBytes> {
        if self.closing {
            return PyBytes::new(py, b"");
        }
        self.output.clear();
        let mut gate = self.gate.bind(py).borrow_mut();
        self.closing = self.codec.feed(data, &mut *gate, &mut self.output) == Flow::Close;
        let answer = PyBytes::new(py, &self.output);
        self.output.shrink_to(64 * 1024);
        answer
    }
}

macro_rules! session {
    ($name:ident, $codec:ty, ($($argument:ident: $type:ty $(= $default:tt)?),*) => $new:expr, $doc:literal) => {
        #[doc = $doc]
        #[pyclass]
        pub struct $name(Session<$codec>);

        #[pymethods]
        impl $name {
            #[new]
            #[pyo3(signature = (gate, $($argument $(= $default)?),*))]
            fn new(gate: Py<Gate>, $($argument: $type),*) -> PyResult<Self> {
                Ok(Self(Session::new($new, gate)))
            }

            /// What is to be written after these bytes were read; nothing once it is closing.
            fn feed<'py>(&mut self, py: Python<'py>, data: &[u8]) -> Bound<'py, PyBytes> {
                self.0.feed(py, data)
            }

            /// Whether the connection ends once all is written.
            #[getter]
            fn closing(&self) -> bool {
                self.0.closing
            }

            /// Makes the next answer the last.
            fn drain(&mut self) {
                self.0.codec.drain();
            }

            /// Whether a request has begun and is not answered.
            #[getter]
            fn unfinished(&self) -> bool {
                self.0.codec.unfinished()
            }
        }
    };
}

session!(HttpSession, http::Http, () => http::Http::default(), "A connection of the `check` gateway.");
session!(SpopSession, spop::Spop, () => spop::Spop::default(), "A connection of the `spoe` gateway.");
session!(IcapSession, icap::Icap, (max_connections: u32) => icap::Icap::new(max_connections),
    "A connection of the `icap` gateway; `max_connections` is what it says of itself.");
session!(SquidSession, squid::Squid,
    (matches: &str, redirect: Option<String> = None, replace: Option<String> = None, open: bool = false) =>
    squid::Squid::new(style(matches, redirect, replace)?, open),
    "A helper of Squid: an ACL that `matches` `block` or `inspect`, or a rewriter if there is an address to `redirect` to, or one \
     to `replace` a listed page by; `open`: what cannot be decided passes.");

/// Raises `ValueError`: neither `block` nor `inspect`, or an address that would end the answer that it is written in.
fn style(matches: &str, redirect: Option<String>, replace: Option<String>) -> PyResult<squid::Style> {
    let harmful = |byte: u8| !(b'!'..=b'~').contains(&byte) || matches!(byte, b'"' | b'\\');
    if redirect.iter().chain(&replace).any(|page| page.bytes().any(harmful)) {
        return Err(PyValueError::new_err("an address of a rewriter is of printable ASCII without quotes"));
    }
    match (matches, redirect, replace) {
        (_, Some(_), Some(_)) => Err(PyValueError::new_err("a rewriter either redirects or replaces")),
        (_, Some(page), None) => Ok(squid::Style::Redirects(page)),
        (_, None, Some(page)) => Ok(squid::Style::Replaces(page)),
        ("block", None, None) => Ok(squid::Style::Matches(Verdict::Block)),
        ("inspect", None, None) => Ok(squid::Style::Matches(Verdict::Inspect)),
        _ => Err(PyValueError::new_err("an ACL matches block or inspect")),
    }
}
