//! The `dns` gateway for Python: datagrams of a socket answered in one call, and connections.

use std::net::IpAddr;
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::dns_filter::{ReasonFields, explain, filter, wire};
use super::dns_upstream::{DnsFound, DnsQuestion};
use super::dns_zones::{DnsDatagram, Handed};
use super::gate::Gate;
use crate::datagrams::{self, BATCH, Batch};
use crate::wire::Flow;
use crate::wire::dns::cache::Cache;
use crate::wire::dns::clients::{Admission, Clients, Network, Refused};
use crate::wire::dns::message::{Rcode, flag};
use crate::wire::dns::reply::Transport;
use crate::wire::dns::special::Designated;
use crate::wire::dns::stream::{Stream, set_length};
use crate::wire::dns::upstream::Found;
use crate::wire::dns::zone::Zone;
use crate::wire::dns::{Later, Service, Step, rebuff};

/// Batches that are answered before others have a turn.
const ROUNDS: usize = 4;

/// What the gateway is and answers; one for all its sockets.
#[pyclass]
pub struct DnsService {
    service: Service,
    gate: Py<Gate>,
    clients: Clients,
    refuses: bool,
    handed: Handed,
    batch: Batch,
    output: Vec<u8>,
}

#[pymethods]
impl DnsService {
    /// Answers nothing until it is configured. `key`: 16 random bytes, for the limits of clients.
    #[new]
    fn new(gate: Py<Gate>, key: [u8; 16]) -> Self {
        Self {
            service: Service::new(Cache::new(0, 0, 0)),
            gate,
            clients: Clients::new(key),
            refuses: false,
            handed: Handed::default(),
            batch: Batch::default(),
            output: Vec::new(),
        }
    }

    /// Sets the zone that says what the lists say; None: there is none.
    ///
    /// Raises `ValueError`: a name is none.
    fn serve(&mut self, zone: Option<&str>, servers: Vec<String>, link: String, ttl: u32) -> PyResult<()> {
        let servers = servers.iter().map(|server| wire(server)).collect::<PyResult<_>>()?;
        self.service.zone = zone.map(|zone| Ok::<_, PyErr>(Zone::new(wire(zone)?, servers, link, ttl))).transpose()?;
        Ok(())
    }

    /// Sets what names in lists get, and that all others are forwarded; without `blocked`, that none is. `aliases`: whether
    /// names are blocked whose answers lead over a blocked one. What `explain` sets begins anew.
    ///
    /// Raises `ValueError`: `blocked` is not nxdomain, nodata or addresses.
    fn filter(
        &mut self,
        blocked: Option<&str>,
        page: Vec<IpAddr>,
        inspect: Vec<IpAddr>,
        aliases: bool,
        ttl: u32,
    ) -> PyResult<()> {
        let chosen = blocked.map(|blocked| filter(blocked, page, inspect, aliases, ttl));
        self.service.filter = chosen.transpose()?;
        Ok(())
    }

    /// Sets names that do not exist here, nor what is below them, beside those of the Internet's own rules.
    ///
    /// Raises `ValueError`: one is none.
    fn withhold(&mut self, names: Vec<String>) -> PyResult<()> {
        self.service.withheld = names.iter().map(|name| wire(name)).collect::<PyResult<_>>()?;
        Ok(())
    }

    /// Sets the name, in the certificate, and the port by which clients that look for it have this resolver over TLS
    /// (RFC 9462); None: they do not.
    ///
    /// Raises `ValueError`: it is none, or too long for the label before it.
    fn designate(&mut self, name: Option<&str>, port: u16) -> PyResult<()> {
        let designated = name.map(|name| {
            Designated::new(&wire(name)?, port).ok_or_else(|| PyValueError::new_err("the name is too long"))
        });
        self.service.designated = designated.transpose()?;
        Ok(())
    }

    /// Sets why names are blocked, for those who ask. `reasons`: (list, Extended DNS Error, structured text, shorter one),
    /// the list empty for all others; `structured_option`: code of the option that asks for these.
    fn explain(&mut self, reasons: Vec<ReasonFields>, structured_option: u16) {
        self.service.structured_option = structured_option;
        if let Some(filter) = &mut self.service.filter {
            explain(filter, reasons);
        }
    }

    /// Answers these networks, each of their parts at most `rate` datagrams a second (0: any number); tells others that
    /// they are refused, or nothing.
    ///
    /// Raises `ValueError`: a network has more bits than its address.
    fn admit(&mut self, networks: Vec<(IpAddr, u8)>, refuses: bool, rate: u32) -> PyResult<()> {
        let known = networks.into_iter().map(|(address, length)| Network::new(address, length));
        let known = known.collect::<Option<Vec<_>>>();
        let known = known.ok_or_else(|| PyValueError::new_err("a network has more bits than its address"))?;
        self.clients.configure(known, rate);
        self.refuses = refuses;
        Ok(())
    }

    /// Keeps answers of others in so many bytes, for at most `max_ttl` seconds, and `stale_seconds` more for when nobody
    /// answers.
    fn keep_answers(&mut self, max_bytes: usize, max_ttl: u32, stale_seconds: u32) {
        self.service.cache.configure(max_bytes, max_ttl, stale_seconds);
    }

    /// How many answers of others are kept.
    #[getter]
    fn kept(&self) -> usize {
        self.service.cache.len()
    }

    /// What they take, in bytes.
    #[getter]
    fn kept_bytes(&self) -> usize {
        self.service.cache.bytes()
    }

    /// Datagrams since the start that were of strangers, that were told to come over a connection, and that got nothing,
    /// the last two since they were over the rate.
    #[getter]
    fn refused(&self) -> (u64, u64, u64) {
        let Refused { strangers, slipped, dropped } = self.clients.refused();
        (strangers, slipped, dropped)
    }

    /// Whether an address is in one of the networks. Raises `ValueError`: it is none.
    fn knows(&self, address: IpAddr) -> bool {
        self.clients.known(address)
    }

    /// The part of the network that an address is in, as a number that says nothing of it and is another one in each
    /// process. Raises `ValueError`: it is none.
    fn part(&self, address: IpAddr) -> u64 {
        self.clients.part(address)
    }

    /// Leaves what is asked about these zones, by their names on the wire, to somebody else.
    fn hand_over(&mut self, zones: Vec<Vec<u8>>) {
        self.handed.zones = zones;
    }

    /// Datagrams about such zones that `receive` found, each given once. They are of anybody, whom `admit` names or not.
    fn take_datagrams(&mut self) -> Vec<DnsDatagram> {
        std::mem::take(&mut self.handed.datagrams)
    }

    /// Whether a message asks about such a zone. None: that shows only when more of it has come.
    fn names_zone(&self, message: &[u8]) -> Option<bool> {
        self.handed.names_zone(message)
    }

    /// Answers the datagrams that have arrived at a socket; gives back what somebody else is to be asked. `now`: seconds
    /// since any fixed moment.
    fn receive(&mut self, py: Python<'_>, socket: i32, now: f64) -> Vec<DnsQuestion> {
        let mut questions = Vec::new();
        let gate = self.gate.clone_ref(py);
        let mut gate = gate.bind(py).borrow_mut();
        let now = Duration::from_secs_f64(now);
        for _ in 0..ROUNDS {
            let count = self.batch.receive(socket);
            self.output.clear();
            let mut answers = Vec::with_capacity(count);
            for at in 0..count {
                let (message, peer) = self.batch.get(at);
                let start = self.output.len();
                if self.handed.take(message, peer) {
                    continue;
                }
                let step = match self.clients.admit(peer.address(), now) {
                    Admission::Answer => {
                        self.service.answer(message, Transport::Datagram, &mut *gate, now, &mut self.output)
                    }
                    Admission::Slip => rebuff(message, Rcode::NoError, flag::TC, &mut self.output),
                    Admission::Stranger if self.refuses => rebuff(message, Rcode::Refused, 0, &mut self.output),
                    Admission::Drop | Admission::Stranger => Step::Dropped,
                };
                if let Step::Forward(question) = step {
                    let part = self.clients.part(peer.address());
                    questions.push(DnsQuestion { question, peer: Some((peer.clone(), part)) });
                } else if self.output.len() > start {
                    answers.push((self.output.len(), peer));
                }
            }
            datagrams::send(socket, &self.output, &answers);
            if count < BATCH {
                break;
            }
        }
        questions
    }

    /// Sends the answer to a question that came as a datagram: what somebody else answered, or that nobody did. Gives back
    /// which it was: `answer`; `stale`: one whose time is over; `failed`: that others cannot say; `none`: that nobody does.
    fn send(
        &mut self,
        py: Python<'_>,
        socket: i32,
        question: &DnsQuestion,
        found: Option<&DnsFound>,
        now: f64,
    ) -> &'static str {
        self.output.clear();
        let said = self.write(py, question, found, now);
        if let Some((peer, _)) = &question.peer
            && !self.output.is_empty()
        {
            datagrams::send(socket, &self.output, &[(self.output.len(), peer)]);
        }
        said
    }

    /// The answer to a question that came over a connection, with its length before it, and which it is; see `send`.
    fn answer<'py>(
        &mut self,
        py: Python<'py>,
        question: &DnsQuestion,
        found: Option<&DnsFound>,
        now: f64,
    ) -> (Bound<'py, PyBytes>, &'static str) {
        self.output.clear();
        self.output.extend_from_slice(&[0; 2]);
        let said = self.write(py, question, found, now);
        set_length(&mut self.output, 0);
        (PyBytes::new(py, &self.output), said)
    }

    /// Keeps what somebody else answered, or (None) that nobody did, for as long as it may be.
    fn keep(&mut self, question: &DnsQuestion, found: Option<&DnsFound>, now: f64) {
        let (key, now) = (question.question.key(), Duration::from_secs_f64(now));
        match found.map(DnsFound::found) {
            Some(Some(found)) => self.service.cache.keep(key, found, now),
            _ => self.service.cache.keep(key, &Found::nothing(), now),
        }
    }

    /// Whether an answer is kept whose time is over, and that may still be given.
    fn has_late(&self, question: &DnsQuestion, now: f64) -> bool {
        self.service.cache.has_late(question.question.key(), Duration::from_secs_f64(now))
    }
}

impl DnsService {
    /// Writes a client's answer, and says which it is.
    fn write(&mut self, py: Python<'_>, question: &DnsQuestion, found: Option<&DnsFound>, now: f64) -> &'static str {
        let (said, now) = (found.and_then(DnsFound::found), Duration::from_secs_f64(now));
        let mut gate = self.gate.bind(py).borrow_mut();
        match self.service.answer_later(&question.question, said, &mut *gate, now, &mut self.output) {
            Later::Answer => "answer",
            Later::Stale => "stale",
            // Who cannot even be read has answered, too.
            Later::Failure if found.is_some() => "failed",
            Later::Failure => "none",
        }
    }
}

/// A connection of the `dns` gateway; `encrypted`: whether nobody else can read it.
#[pyclass]
pub struct DnsSession {
    stream: Stream,
    service: Py<DnsService>,
    closing: bool,
}

#[pymethods]
impl DnsSession {
    #[new]
    fn new(service: Py<DnsService>, encrypted: bool) -> Self {
        Self { stream: Stream::new(encrypted), service, closing: false }
    }

    /// What is to be written after these bytes were read, and what somebody else is to be asked.
    fn feed<'py>(&mut self, py: Python<'py>, data: &[u8], now: f64) -> (Bound<'py, PyBytes>, Vec<DnsQuestion>) {
        if self.closing {
            return (PyBytes::new(py, b""), Vec::new());
        }
        let mut service = self.service.bind(py).borrow_mut();
        let gate = service.gate.clone_ref(py);
        let mut gate = gate.bind(py).borrow_mut();
        let (mut output, mut forwards) = (std::mem::take(&mut service.output), Vec::new());
        output.clear();
        let now = Duration::from_secs_f64(now);
        let flow = self.stream.feed(data, &mut service.service, &mut *gate, now, &mut output, &mut forwards);
        self.closing = flow == Flow::Close;
        let answer = PyBytes::new(py, &output);
        output.shrink_to(64 * 1024);
        service.output = output;
        let forwards = forwards.into_iter().map(|question| DnsQuestion { question, peer: None });
        (answer, forwards.collect())
    }

    /// Whether the connection ends once all is written.
    #[getter]
    fn closing(&self) -> bool {
        self.closing
    }

    /// Whether a message has begun that is not whole.
    #[getter]
    fn unfinished(&self) -> bool {
        self.stream.unfinished()
    }
}
