//! The `dns` gateway for Python: datagrams of a socket answered in one call, connections, and questions for others.

use std::net::IpAddr;
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::dns_filter::{ReasonFields, filter, wire};
use super::dns_zones::{DnsDatagram, Handed};
use super::gate::Gate;
use crate::datagrams::{self, BATCH, Batch, Peer};
use crate::wire::Flow;
use crate::wire::dns::cache::{Aged, Cache, write};
use crate::wire::dns::clients::{Admission, Clients, Network, Refused};
use crate::wire::dns::message::{CLASS_IN, Query, Rcode, flag};
use crate::wire::dns::reply::{Reply, Transport};
use crate::wire::dns::stream::{Stream, set_length};
use crate::wire::dns::upstream::{Found, Heard, Question, RANDOM_BYTES, hear};
use crate::wire::dns::zone::Zone;
use crate::wire::dns::{Service, Step};

/// Network Error (RFC 8914, section 4.24).
const NETWORK_ERROR: u16 = 23;
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

    /// Sets what names in lists get, and that all others are forwarded; without `blocked`, that none is. `reasons`: (list, Extended DNS Error, structured
    /// text, shorter one), the list empty for all others; `structured_option`: code of the option that asks for these.
    ///
    /// Raises `ValueError`: `blocked` is not nxdomain, nodata or addresses.
    fn filter(
        &mut self,
        blocked: Option<&str>,
        page: Vec<IpAddr>,
        inspect: Vec<IpAddr>,
        ttl: u32,
        reasons: Vec<ReasonFields>,
        structured_option: u16,
    ) -> PyResult<()> {
        self.service.filter = blocked.map(|blocked| filter(blocked, page, inspect, ttl, reasons)).transpose()?;
        self.service.structured_option = structured_option;
        Ok(())
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
                    questions.push(DnsQuestion { question, peer: Some(peer.clone()) });
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
        socket: i32,
        question: &DnsQuestion,
        found: Option<&DnsFound>,
        now: f64,
    ) -> &'static str {
        self.output.clear();
        let said = self.write(question, found, now);
        if let Some(peer) = &question.peer
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
        let said = self.write(question, found, now);
        set_length(&mut self.output, 0);
        (PyBytes::new(py, &self.output), said)
    }

    /// Keeps what somebody else answered, for as long as it may be.
    fn keep(&mut self, question: &DnsQuestion, found: &DnsFound, now: f64) {
        if let Some(found) = found.found() {
            self.service.cache.keep(question.question.key(), found, Duration::from_secs_f64(now));
        }
    }
}

impl DnsService {
    /// Writes a client's answer, and says which it is.
    fn write(&mut self, question: &DnsQuestion, found: Option<&DnsFound>, now: f64) -> &'static str {
        let (question, output) = (&question.question, &mut self.output);
        let Some(query) = question.query(self.service.structured_option) else { return "none" };
        let (transport, now) = (question.transport(), Duration::from_secs_f64(now));
        match found.and_then(DnsFound::found) {
            Some(found) if found.says() => {
                write(found, &query, transport, Aged::By(0, u32::MAX), output);
                "answer"
            }
            _ if self.service.cache.answer_late(&query, transport, now, output) => "stale",
            Some(found) => {
                write(found, &query, transport, Aged::By(0, u32::MAX), output);
                "failed"
            }
            None => {
                Reply::because(Rcode::ServFail, NETWORK_ERROR).write(&query, transport, output);
                // Who cannot even be read has answered, too.
                if found.is_some() { "failed" } else { "none" }
            }
        }
    }
}

/// An answer without anything, never longer than its query.
fn rebuff(message: &[u8], rcode: Rcode, flags: u16, output: &mut Vec<u8>) -> Step {
    let Some(mut query) = Query::parse(message, 0) else { return Step::Dropped };
    query.edns = None;
    Reply { flags, ..Reply::of(rcode) }.write(&query, Transport::Datagram, output);
    Step::Answered
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

/// A client's query that waits for somebody else's answer. Who the client is cannot be read.
#[pyclass(frozen)]
pub struct DnsQuestion {
    question: Question,
    peer: Option<Peer>,
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
        Ok(Self { question: Question::new(&message, &query, Transport::Datagram), peer: None })
    }

    /// Questions with one key have one answer.
    #[getter]
    fn key<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.question.key())
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
    /// `stranger`: no answer to what was asked; `truncated`; `failed`: the other resolver does not say, though it may have
    /// an answer that says so; `answer`.
    #[getter]
    fn state(&self) -> &'static str {
        match &self.0 {
            Heard::Stranger => "stranger",
            Heard::Truncated => "truncated",
            Heard::Answer(found) if found.says() => "answer",
            Heard::Failed | Heard::Answer(_) => "failed",
        }
    }
}

impl DnsFound {
    fn found(&self) -> Option<&Found> {
        if let Heard::Answer(found) = &self.0 { Some(found) } else { None }
    }
}
