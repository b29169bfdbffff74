//! Questions that other resolvers are asked, and what they answer, for Python.

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::dns_filter::wire;
use crate::datagrams::Peer;
use crate::wire::dns::message::{CLASS_IN, Query};
use crate::wire::dns::reply::Transport;
use crate::wire::dns::upstream::{Found, Heard, Question, RANDOM_BYTES, hear};

/// A client's query that waits for somebody else's answer. Who the client is cannot be read.
#[pyclass(frozen)]
pub struct DnsQuestion {
    pub(super) question: Question,
    /// Of a datagram: who sent it, and the part of the network.
    pub(super) peer: Option<(Peer, u64)>,
}

#[pymethods]
impl DnsQuestion {
    /// A question of our own, which no client waits for.
    ///
    /// Raises `ValueError`: the name is none of letters, digits, hyphens and underscores.
    #[staticmethod]
    fn about(name: &str, kind: u16) -> PyResult<Self> {
        let mut message = [&[0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0], wire(name)?.as_slice()].concat();
        message.extend([kind, CLASS_IN].map(u16::to_be_bytes).as_flattened());
        let query = Query::parse(&message, 0).expect("it has a header");
        Ok(Self { question: Question::new(&query, Transport::Datagram, false), peer: None })
    }

    /// Questions with one key have one answer.
    #[getter]
    fn key<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.question.key())
    }

    /// The part of the network that a datagram came from; see `DnsService.part`. None: it came over a connection.
    #[getter]
    fn part(&self) -> Option<u64> {
        self.peer.as_ref().map(|(_, part)| *part)
    }

    /// A query to another resolver; each has another id and other letters' case, from 34 random bytes.
    fn exchange(&self, random: [u8; RANDOM_BYTES]) -> DnsExchange {
        DnsExchange(self.question.forwarded(&random))
    }
}

/// A query to another resolver.
#[pyclass(frozen)]
pub struct DnsExchange(Vec<u8>);

#[pymethods]
impl DnsExchange {
    /// As it is sent.
    #[getter]
    fn query<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0)
    }

    /// What came back, as a datagram or over a connection.
    fn hear(&self, message: &[u8], stream: bool) -> DnsFound {
        DnsFound(hear(message, &self.0, if stream { Transport::Stream } else { Transport::Datagram }))
    }
}

/// What came back from another resolver.
#[pyclass(frozen)]
pub struct DnsFound(Heard);

#[pymethods]
impl DnsFound {
    /// `stranger`: no answer to what was asked; `recased`: one but for letters' case; `truncated`; `failed`: the other
    /// resolver does not say, though it may have an answer that says so; `answer`.
    #[getter]
    fn state(&self) -> &'static str {
        match &self.0 {
            Heard::Stranger => "stranger",
            Heard::Recased => "recased",
            Heard::Truncated => "truncated",
            Heard::Answer(found) if found.says() => "answer",
            Heard::Failed | Heard::Answer(_) => "failed",
        }
    }
}

impl DnsFound {
    /// What it says, if it could be read.
    pub(super) fn found(&self) -> Option<&Found> {
        if let Heard::Answer(found) = &self.0 { Some(found) } else { None }
    }
}
