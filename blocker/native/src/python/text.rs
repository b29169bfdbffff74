//! URLs from Python: `str` or `bytes` in, canonical text out.

use std::borrow::Cow;
use std::cell::RefCell;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use super::errors;
use crate::canonical::Canonical;
use crate::decide;
use crate::wire::language;

thread_local! {
    static URL: RefCell<Canonical> = RefCell::default();
}

/// The bytes of a `str` (UTF-8, surrogate-escaped bytes restored, other lone surrogates U+FFFD) or `bytes`.
pub fn bytes_of<'a>(text: &'a Bound<'_, PyAny>) -> PyResult<Cow<'a, [u8]>> {
    if let Ok(text) = text.cast::<PyString>() {
        return match text.to_str() {
            Ok(text) => Ok(Cow::Borrowed(text.as_bytes())),
            Err(_) => Ok(Cow::Owned(with_surrogates(text)?)),
        };
    }
    match text.cast::<PyBytes>() {
        Ok(bytes) => Ok(Cow::Borrowed(bytes.as_bytes())),
        Err(_) => Err(PyTypeError::new_err("expected str or bytes")),
    }
}

/// `surrogatepass` writes a lone surrogate U+D800–U+DFFF as the three bytes ED A0–BF 80–BF, which no UTF-8 text holds.
fn with_surrogates(text: &Bound<'_, PyString>) -> PyResult<Vec<u8>> {
    let passed = text.call_method1("encode", ("utf-8", "surrogatepass"))?;
    let passed = passed.cast::<PyBytes>()?.as_bytes();
    let mut out = Vec::with_capacity(passed.len());
    let mut rest = passed;
    while let Some(&byte) = rest.first() {
        if let [0xed, high @ 0xa0..=0xbf, low, ..] = *rest {
            let code = 0xd000 | u32::from(high & 0x3f) << 6 | u32::from(low & 0x3f);
            if (0xdc80..=0xdcff).contains(&code) {
                out.push(code as u8);
            } else {
                out.extend_from_slice("\u{fffd}".as_bytes());
            }
            rest = &rest[3..];
        } else {
            out.push(byte);
            rest = &rest[1..];
        }
    }
    Ok(out)
}

fn with_canonical(url: &Bound<'_, PyAny>, then: impl FnOnce(&Canonical) -> String) -> PyResult<String> {
    let bytes = bytes_of(url)?;
    URL.with_borrow_mut(|canonical| match canonical.set(&bytes) {
        Ok(()) => Ok(then(canonical)),
        Err(error) => Err(errors::invalid_url(url.py(), &error)),
    })
}

/// The canonical form of a URL: `scheme://host/path[?query]`, printable ASCII.
///
/// `url` is `str` or `bytes` of at most 65 536 bytes. A `str` is read as UTF-8; surrogate-escaped bytes (PEP 383) are
/// restored, other lone surrogates become U+FFFD, as in WHATWG. Percent-escapes are decoded until nothing changes, in one
/// pass. Idempotent. The form is that of Google Safe Browsing and Web Risk ("URLs and hashing") with WHATWG host parsing.
///
/// Raises `InvalidURL`: the text is no URL that can be asked for; the message says why and never repeats it.
///
/// Cost: linear in the length, about 0.2 µs for a usual URL.
#[pyfunction]
#[pyo3(signature = (url, /))]
pub fn canonicalize(url: &Bound<'_, PyAny>) -> PyResult<String> {
    with_canonical(url, |canonical| canonical.text().to_owned())
}

/// The SURT of a URL: host labels reversed and comma-ended, `)`, path and query of the canonical form.
///
/// `http://www.example.com/a` is `com,example,www,)/a`; an IP address is one label. Raises `InvalidURL` as `canonicalize`.
#[pyfunction]
#[pyo3(signature = (url, /))]
pub fn surt(url: &Bound<'_, PyAny>) -> PyResult<String> {
    with_canonical(url, decide::surt_of)
}

/// The number of the best of the languages that are there, for an `Accept-Language` value; 0 where none is asked for.
#[pyfunction]
pub fn best_language(accepted: &[u8], there: Vec<String>) -> usize {
    language::best(accepted, &there.iter().map(String::as_str))
}
