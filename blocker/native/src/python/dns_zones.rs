//! Datagrams about zones: those of a socket of their own, and those that come to the `dns` gateway at its addresses.

use std::net::IpAddr;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::datagrams::{self, Batch, Peer};
use crate::wire::dns::message::{HEADER_BYTES, MAX_NAME_BYTES, asked_name};
use crate::wire::dns::name;

/// Datagrams that wait to be taken; more are dropped: secondaries are few, and come again.
const MAX_HANDED: usize = 64;

/// The zones, by their names on the wire, and what came about them.
#[derive(Default)]
pub struct Handed {
    pub zones: Vec<Vec<u8>>,
    pub datagrams: Vec<DnsDatagram>,
}

impl Handed {
    /// Whether a datagram is about one of the zones; it is kept then, if there is room.
    pub fn take(&mut self, message: &[u8], peer: &Peer) -> bool {
        let found = !self.zones.is_empty() && asked_name(message).is_some_and(|name| self.holds(name));
        if found && self.datagrams.len() < MAX_HANDED {
            self.datagrams.push(DnsDatagram { message: message.to_vec(), peer: peer.clone() });
        }
        found
    }

    /// Whether a message asks about one of the zones. None: that shows only when more of it has come.
    pub fn names_zone(&self, message: &[u8]) -> Option<bool> {
        let known = asked_name(message).map(|name| self.holds(name));
        // What has no name where the longest one would have ended is not waited for.
        known.or((message.len() > HEADER_BYTES + MAX_NAME_BYTES).then_some(false))
    }

    fn holds(&self, asked: &[u8]) -> bool {
        self.zones.iter().any(|zone| name::is_within(asked, zone))
    }
}

/// Datagrams of a socket, as many as one call of the system brings in.
#[pyclass]
#[derive(Default)]
pub struct DnsDatagrams(Batch);

#[pymethods]
impl DnsDatagrams {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Those that have arrived, at most 64; what is longer than 4096 bytes is cut there.
    fn receive(&mut self, socket: i32) -> Vec<DnsDatagram> {
        let count = self.0.receive(socket);
        let taken = (0..count).map(|at| self.0.get(at));
        taken.map(|(message, peer)| DnsDatagram { message: message.to_vec(), peer: peer.clone() }).collect()
    }
}

/// A datagram that may be about a zone.
#[pyclass(frozen)]
pub struct DnsDatagram {
    message: Vec<u8>,
    peer: Peer,
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
