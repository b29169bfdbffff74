//! Datagrams that the `dns` gateway received for somebody else.

use std::net::IpAddr;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::datagrams::{self, Peer};

/// A datagram about a zone that somebody else serves.
#[pyclass(frozen)]
pub struct DnsDatagram {
    pub(super) message: Vec<u8>,
    pub(super) peer: Peer,
}

#[pymethods]
impl DnsDatagram {
    /// What was sent.
    #[getter]
    fn message<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.message)
    }

    /// Whose it is: who may have a zone can depend on it.
    #[getter]
    fn address(&self) -> IpAddr {
        self.peer.address()
    }

    /// Sends the answer from where the datagram came to.
    fn answer(&self, socket: i32, message: &[u8]) {
        datagrams::send(socket, message, &[(message.len(), &self.peer)]);
    }
}
