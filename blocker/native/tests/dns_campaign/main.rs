//! A bounded random campaign over the DNS codec: no message may crash it, be answered wrongly, or at length.
//!
//! `CAMPAIGN_INPUTS` sets the number of inputs of each campaign (default 1 000 000), `CAMPAIGN_SEED` the first one. A failure
//! prints its seed.

mod answers;
#[path = "../random/mod.rs"]
mod random;

use std::collections::HashMap;
use std::time::Duration;

use blocker_native::decide::Verdict;
use blocker_native::wire::dns::cache::Cache;
use blocker_native::wire::dns::filter::{Addresses, Blocked, Filter, Reason};
use blocker_native::wire::dns::message::{Options, Query, Reader, counts, flag, kind};
use blocker_native::wire::dns::name::to_wire;
use blocker_native::wire::dns::reply::Transport;
use blocker_native::wire::dns::special::Designated;
use blocker_native::wire::dns::stream::Stream;
use blocker_native::wire::dns::upstream::RANDOM_BYTES;
use blocker_native::wire::dns::zone::Zone;
use blocker_native::wire::dns::{Service, Step};
use blocker_native::wire::{Answer, Decide, Flow, Page};
use random::{Random, campaign};

/// Blocks what begins with `b`, inspects what begins with `i`, has an exception for what begins with `e` and no matcher for
/// what begins with `n`.
struct Gate;

impl Decide for Gate {
    fn url(&mut self, _url: &[u8]) -> Option<Answer<'_>> {
        None
    }

    fn host(&mut self, host: &[u8]) -> Option<Answer<'_>> {
        assert!(!host.is_empty() && host.iter().all(u8::is_ascii_graphic));
        let verdict = match host[0].to_ascii_lowercase() {
            b'b' => Verdict::Block,
            b'i' => Verdict::Inspect,
            b'n' => return None,
            _ => Verdict::Allow,
        };
        let list = match host[0].to_ascii_lowercase() {
            b'b' => "police",
            b'e' => "exceptions",
            _ => "",
        };
        Some(Answer { verdict, list })
    }

    fn alias(&mut self, host: &[u8]) -> Option<Answer<'_>> {
        self.host(host)
    }

    fn page(&self, _list: &str, _accept_language: &[u8]) -> Page<'_> {
        Page { head: b"", body: b"" }
    }

    fn tag(&self) -> &'static str {
        "0123456789abcdef"
    }
}

fn service(random: &mut Random) -> Service {
    let mut service = Service::new(Cache::new(random.pick(&[0, 2000, 1 << 20]), 3600, random.pick(&[0, 60])));
    let wire = |text| to_wire(text).expect("a name");
    if random.below(3) > 0 {
        service.zone = Some(Zone::new(wire("bl.test"), vec![], "https://operator.example/why".to_owned(), 30));
    }
    let addresses = || Addresses {
        v4: vec!["192.0.2.1".parse().expect("an address"), "192.0.2.2".parse().expect("an address")],
        v6: vec!["2001:db8::1".parse().expect("an address")],
    };
    if random.below(4) > 0 {
        let blocked = match random.below(3) {
            0 => Blocked::NxDomain,
            1 => Blocked::NoData,
            _ => Blocked::Addresses(addresses()),
        };
        let inspect = (random.below(2) == 0).then(addresses);
        let texts = [r#"{"c":["tel:+1"],"j":"because","o":"a provider","l":"en"}"#, r#"{"c":["tel:+1"]}"#];
        let reason = Reason { error: 16, texts: texts.map(str::to_owned) };
        let aliases = random.below(4) > 0;
        service.filter = Some(Filter { blocked, inspect, aliases, ttl: 30, reasons: HashMap::default(), reason });
        service.structured_option = 65_001;
        service.designated = Designated::new(&wire("dns.allow.test"), random.pick(&[853, 8853]));
        service.designated.take_if(|_| random.below(3) == 0);
    }
    service
}

const LABELS: &[&[u8]] = &[
    b"\x07blocked",
    b"\x01i",
    b"\x05allow",
    b"\x06except",
    b"\x01n",
    b"\x02bl",
    b"\x02BL",
    b"\x04test",
    b"\x04TeSt",
    b"\x012",
    b"\x010",
    b"\x03127",
    b"\x011",
    b"\x07invalid",
    b"\x03a.b",
    b"\x03\x00\xff@",
    b"\x3fbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
]; // an odd one among them is enough
const KINDS: &[u16] = &[
    kind::A,
    kind::A,
    kind::AAAA,
    kind::TXT,
    kind::SOA,
    kind::NS,
    kind::HTTPS,
    kind::SVCB,
    kind::ANY,
    kind::AXFR,
    kind::IXFR,
    15,
    41,
    250,
    0,
    65535,
];

fn name(random: &mut Random, out: &mut Vec<u8>) {
    for _ in 0..random.below(6) {
        out.extend_from_slice(random.pick(LABELS));
    }
    match random.below(30) {
        0..10 => out.extend_from_slice(b"\x02bl\x04test"),
        10 => out.extend_from_slice(b"\x04_dns\x08resolver\x04arpa"),
        11 => out.extend_from_slice(b"\x04_dns\x03dns\x05allow\x04test"),
        _ => {}
    }
    out.push(0);
}

fn put(values: &[u16], out: &mut Vec<u8>) {
    for value in values {
        out.extend_from_slice(&value.to_be_bytes());
    }
}

/// A query that is nearly always right.
fn query(random: &mut Random) -> Vec<u8> {
    let mut out = Vec::new();
    let additional = u16::from(random.below(3) > 0);
    put(&[random.next() as u16, random.pick(&[0x0100, 0x0110, 0x0120, 0x0000]), 1, 0, 0, additional], &mut out);
    name(random, &mut out);
    put(&[random.pick(KINDS), random.pick(&[1, 1, 1, 1, 3, 255])], &mut out);
    if additional == 1 {
        let options: &[u8] = random.pick(&[
            &b""[..],
            b"\x00\x0f\x00\x02\x00\x00",
            b"\xfd\xe9\x00\x00",
            b"\x00\x0a\x00\x08cookies!",
            b"\x00\x08\x00\x07\x00\x01\x18\x00\xc0\x00\x02",
            b"\x00\x0c\x00\x40................................................................",
        ]);
        out.push(0);
        put(
            &[kind::OPT, random.pick(&[0, 512, 1232, 4096]), 0, random.pick(&[0, 0x8000]), options.len() as u16],
            &mut out,
        );
        out.extend_from_slice(options);
    }
    out
}

fn damage(random: &mut Random, message: &mut Vec<u8>) {
    for _ in 0..random.below(4) {
        if message.is_empty() {
            return;
        }
        let at = random.below(message.len());
        match random.below(4) {
            0 => message[at] = random.pick(&[0, 1, 0x3f, 0x40, 0xc0, 0xff]),
            1 => message[at] ^= 1 << random.below(8),
            2 => message.truncate(at),
            _ => message.insert(at, random.next() as u8),
        }
    }
}

/// Reads an answer as strictly as a client may, and gives its answers' number.
fn check(answer: &[u8], asked: &[u8], transport: Transport) -> u16 {
    let query = Query::parse(asked, 65_001).expect("only a query is answered");
    assert_eq!(answer[..2], asked[..2]);
    let flags = u16::from_be_bytes([answer[2], answer[3]]);
    assert_eq!(flags & flag::QR, flag::QR);
    assert_eq!(flags & flag::RD, query.flags & flag::RD);
    let [questions, answers, authorities, additional] = counts(answer);
    assert_eq!(usize::from(questions), usize::from(!query.question.is_empty()));
    let mut reader = Reader { message: answer, at: 12 };
    assert_eq!(reader.take(query.question.len()), Ok(query.question), "as it was asked, letter for letter");
    for _ in 0..answers + authorities {
        reader.record().expect("a record");
    }
    let mut edns = false;
    for _ in 0..additional {
        let record = reader.record().expect("a record");
        if record.kind == kind::OPT {
            assert!(!edns);
            edns = true;
            assert!(Options(&answer[record.data..record.end]).all(|option| option.is_ok()));
        }
    }
    assert_eq!(edns, query.edns.is_some());
    assert_eq!(reader.at, answer.len());
    assert!(answer.len() <= transport.limit(&query));
    let padded = query.edns.is_some_and(|edns| edns.padded) && transport == Transport::Encrypted;
    assert!(!padded || answer.len() % 468 == 0);
    answers
}

#[test]
fn every_query_gets_an_answer_that_can_be_read_and_is_no_amplifier() {
    let mut output = Vec::new();
    campaign(1, |random| {
        let mut service = service(random);
        let mut message = query(random);
        if random.below(2) == 0 {
            damage(random, &mut message);
        }
        let transport = random.pick(&[Transport::Datagram, Transport::Stream, Transport::Encrypted]);
        output.clear();
        match service.answer(&message, transport, &mut Gate, Duration::ZERO, &mut output) {
            Step::Answered => {
                check(&output, &message, transport);
                let lean = transport != Transport::Datagram || output.len() < 2 * message.len();
                assert!(lean, "{} for {}", output.len(), message.len());
            }
            Step::Dropped => {
                assert!(output.is_empty());
                assert!(message.len() < 12 || message[2] & 0x80 != 0);
            }
            Step::Forward(question) => {
                assert!(output.is_empty());
                let (asked, before) = (question.query(), Query::parse(&message, 65_001).expect("a query"));
                assert_eq!(format!("{asked:?}"), format!("{before:?}"));
                assert!(asked.fault.is_none() && asked.flags & flag::RD != 0);
                let forwarded = question.forwarded(&[0xff; RANDOM_BYTES]);
                let again = Query::parse(&forwarded, 0).expect("a query");
                assert!(again.fault.is_none() && again.question.eq_ignore_ascii_case(asked.question));
                assert_eq!(again.edns.map(|edns| edns.dnssec_ok), Some(asked.edns.is_some_and(|edns| edns.dnssec_ok)));
            }
        }
    });
}

#[test]
fn a_connection_answers_the_same_however_it_is_split() {
    campaign(20, |random| {
        let mut data = Vec::new();
        for _ in 0..random.below(6) {
            let mut message = query(random);
            if random.below(4) == 0 {
                damage(random, &mut message);
            }
            put(&[message.len() as u16], &mut data);
            data.extend_from_slice(&message);
        }
        if random.below(4) == 0 {
            damage(random, &mut data);
        }
        let mut service = service(random);
        let mut feed = |size: &mut dyn FnMut() -> usize| {
            let (mut stream, mut rest) = (Stream::new(false), data.as_slice());
            let (mut output, mut forwards, mut flow) = (Vec::new(), Vec::new(), Flow::Open);
            while !rest.is_empty() && flow == Flow::Open {
                let (chunk, later) = rest.split_at(size().clamp(1, rest.len()));
                flow = stream.feed(chunk, &mut service, &mut Gate, Duration::ZERO, &mut output, &mut forwards);
                rest = later;
            }
            let keys: Vec<_> = forwards.iter().map(|question| question.key().to_vec()).collect();
            (output, keys, flow)
        };
        let whole = feed(&mut || usize::MAX);
        assert!(whole == feed(&mut || 1));
        assert!(whole == feed(&mut || 1 + random.below(30)));
    });
}
