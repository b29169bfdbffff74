//! A random campaign over the gateways' codecs: whatever a peer sends, in whatever pieces, a codec keeps what it promises.
//!
//! - It does not panic.
//! - Whole equals byte by byte equals any split: the same questions to the gate, the same output, the same end.
//! - What comes after the end changes nothing.
//! - The output is at most what came, and one answer for each question that has room in it, and one more.
//! - What is kept is at most twice what came, and an answer.
//! - Right messages in a row are answered as each would be alone: nothing of one is left for the next.
//! - Over long input, what is kept stays under the codec's stated bound, and time is linear.
//!
//! `CAMPAIGN_INPUTS` and `CAMPAIGN_SEED` are those of the other campaign; a fiftieth of the inputs is tried here.

use std::time::{Duration, Instant};

use blocker_native::decide::Verdict;
use blocker_native::wire::chunked::{Chunks, Malformed};
use blocker_native::wire::http::Http;
use blocker_native::wire::icap::Icap;
use blocker_native::wire::spop::Spop;
use blocker_native::wire::squid::{Squid, Style};
use blocker_native::wire::{Answer, Codec, Decide, Flow, Page, http, icap, language, spop, squid};

mod messages;
#[path = "../random/mod.rs"]
mod random;

use random::{Random, campaign};

const DIVISOR: usize = 50;
const REDIRECT: &str = "https://stop.example/";

/// A gate that decides by a hash of the question, and remembers all questions in one number.
struct Desk {
    ready: bool,
    list: String,
    head: Vec<u8>,
    body: Vec<u8>,
    asked: u64,
}

impl Desk {
    fn new(ready: bool, list: usize, page: usize) -> Self {
        let head = format!("Content-Type: text/html\r\nContent-Length: {page}\r\n").into_bytes();
        Self { ready, list: "l".repeat(list), head, body: vec![b'<'; page], asked: 0 }
    }

    fn any(random: &mut Random) -> Self {
        Self::new(random.below(16) > 0, random.pick(&[6, 6, 6, 200]), random.pick(&[0, 9, 300, 2000]))
    }

    fn decide(&mut self, kind: u64, text: &[u8]) -> Option<Answer<'_>> {
        let hash = text.iter().fold(kind, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        self.asked = (self.asked ^ hash).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(7);
        let verdict = [Verdict::Allow, Verdict::Inspect, Verdict::Block, Verdict::Block][(hash >> 20) as usize % 4];
        let list = if hash & (1 << 30) == 0 { "" } else { self.list.as_str() };
        self.ready.then_some(Answer { verdict, list })
    }
}

impl Decide for Desk {
    fn url(&mut self, url: &[u8]) -> Option<Answer<'_>> {
        self.decide(1, url)
    }

    fn host(&mut self, host: &[u8]) -> Option<Answer<'_>> {
        self.decide(2, host)
    }

    fn alias(&mut self, host: &[u8]) -> Option<Answer<'_>> {
        self.decide(3, host)
    }

    fn page(&self, _list: &str, accept_language: &[u8]) -> Page<'_> {
        // Of another length in each language.
        let chosen = language::best(accept_language, &["en", "sv", "de"].into_iter());
        Page { head: &self.head, body: &self.body[chosen.min(self.body.len())..] }
    }

    fn tag(&self) -> &'static str {
        "0123456789abcdef"
    }
}

/// What a codec did with a stream.
#[derive(PartialEq, Eq)]
struct Seen {
    output: Vec<u8>,
    asked: u64,
    closed: bool,
    unfinished: bool,
    /// The most that it kept between calls; not compared.
    memory: Memory,
}

#[derive(Default)]
struct Memory(usize);

impl PartialEq for Memory {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Memory {}

/// Feeds a codec in pieces of these sizes, until it ends.
fn fed<C: Codec>(mut codec: C, desk: &mut Desk, mut data: &[u8], mut size: impl FnMut() -> usize) -> Seen {
    desk.asked = 0;
    let (mut output, mut closed, mut memory) = (Vec::new(), false, 0);
    while !closed && !data.is_empty() {
        let (piece, rest) = data.split_at(size().clamp(1, data.len()));
        closed = codec.feed(piece, desk, &mut output) == Flow::Close;
        memory = memory.max(codec.memory());
        data = rest;
    }
    Seen { output, asked: desk.asked, closed, unfinished: codec.unfinished() && !closed, memory: Memory(memory) }
}

/// The output's bound: a question has at least so many bytes, its answer at most so many beside what came, list and page.
struct Bound {
    question: usize,
    answer: usize,
    /// Whether the answer after which a draining codec ends does not depend on the pieces.
    drains: bool,
}

fn promises<C: Codec>(random: &mut Random, data: &[u8], bound: &Bound, new: impl Fn() -> C) -> Seen {
    let mut desk = Desk::any(random);
    let drained = bound.drains && random.below(16) == 0;
    let codec = || {
        let mut codec = new();
        if drained {
            codec.drain();
        }
        codec
    };
    let whole = fed(codec(), &mut desk, data, || usize::MAX);
    assert!(whole == fed(codec(), &mut desk, data, || 1), "byte by byte");
    assert!(whole == fed(codec(), &mut desk, data, || 1 + random.below(60)), "in pieces");
    if whole.closed {
        let after = [data, b"GET / HTTP/1.1\r\n\r\n\0\n"].concat();
        assert!(whole == fed(codec(), &mut desk, &after, || usize::MAX), "after the end");
    }
    let answer = bound.answer + desk.list.len() + desk.head.len() + desk.body.len();
    assert!(whole.output.len() <= data.len() + (data.len() / bound.question + 1) * answer, "the output");
    assert!(whole.memory.0 <= 2 * (data.len() + answer) + 64, "the memory");
    whole
}

#[test]
fn http_keeps_its_promises() {
    let bound = Bound { question: b"A / HTTP/1.1\n\n".len(), answer: 150, drains: true };
    campaign(DIVISOR, |random| {
        let data = messages::stream(random, b"", messages::http);
        let seen = promises(random, &data, &bound, Http::default);
        assert!(seen.output.is_empty() || seen.output.starts_with(b"HTTP/1.1 "));
    });
}

#[test]
fn icap_keeps_its_promises() {
    let bound = Bound { question: b"A B ICAP/1.0\n\n".len(), answer: 350, drains: true };
    campaign(DIVISOR, |random| {
        let data = messages::stream(random, b"", messages::icap);
        let seen = promises(random, &data, &bound, || Icap::new(100));
        assert!(seen.output.is_empty() || seen.output.starts_with(b"ICAP/1.0 "));
    });
}

#[test]
fn spop_keeps_its_promises() {
    let (bound, hello) = (Bound { question: 11, answer: 90, drains: false }, messages::hello());
    campaign(DIVISOR, |random| {
        let data = messages::stream(random, &hello, messages::spop);
        let seen = promises(random, &data, &bound, Spop::default);
        // Nothing but whole frames is written.
        let mut rest = seen.output.as_slice();
        while let Some((length, frame)) = rest.split_first_chunk() {
            rest = frame.split_at_checked(u32::from_be_bytes(*length) as usize).expect("a whole frame").1;
        }
        assert!(rest.is_empty());
    });
}

#[test]
fn squid_keeps_its_promises() {
    let bound = Bound { question: 1, answer: 60, drains: true };
    let styles = [
        Style::Matches(Verdict::Block),
        Style::Matches(Verdict::Inspect),
        Style::Redirects(REDIRECT.to_owned()),
        Style::Replaces(REDIRECT.to_owned()),
    ];
    let lines = |data: &[u8]| data.split(|&byte| byte == b'\n').count();
    campaign(DIVISOR, |random| {
        let data = messages::stream(random, b"", messages::squid);
        let (style, open) = (&styles[random.below(4)], random.below(2) == 0);
        let seen = promises(random, &data, &bound, || Squid::new(style.clone(), open));
        assert_eq!(lines(&seen.output), lines(&data), "a line for each line");
        assert!(!seen.closed);
    });
}

/// Messages in a row get the answers that each gets on a connection of its own, which begins with `first`.
fn alone<C: Codec>(random: &mut Random, first: &[u8], one: impl Fn(&mut Random, &mut Vec<u8>), new: impl Fn() -> C) {
    let mut desk = Desk::any(random);
    let greeting = fed(new(), &mut desk, first, || usize::MAX).output;
    let (mut data, mut expected, mut closed) = (first.to_vec(), greeting.clone(), false);
    for _ in 0..6 {
        let mut message = first.to_vec();
        one(random, &mut message);
        data.extend_from_slice(&message[first.len()..]);
        if !closed {
            let own = fed(new(), &mut desk, &message, || usize::MAX);
            expected.extend_from_slice(&own.output[greeting.len()..]);
            closed = own.closed;
        }
    }
    let row = fed(new(), &mut desk, &data, || usize::MAX);
    assert!(row.output == expected && row.closed == closed && !row.unfinished);
}

#[test]
fn nothing_of_a_request_is_left_for_the_next() {
    let hello = messages::hello();
    campaign(DIVISOR, |random| {
        alone(random, b"", messages::http, Http::default);
        alone(random, b"", messages::icap, || Icap::new(100));
        alone(random, &hello, messages::spop, Spop::default);
        alone(random, b"", messages::squid, || Squid::new(Style::Matches(Verdict::Block), false));
    });
}

/// Where a body ends, told from all of it at once; None: not in here.
fn body_end(data: &[u8]) -> Result<Option<usize>, ()> {
    let line = |at: usize| -> Result<Option<&[u8]>, ()> {
        let rest = &data[at..];
        match rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
            Some(end) if rest[end] == b'\n' || rest.get(end + 1).is_some_and(|&byte| byte != b'\n') => Err(()),
            Some(end) if end + 1 < rest.len() => Ok(Some(&rest[..end])),
            _ => Ok(None),
        }
    };
    let size_of = |line: &[u8]| {
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let after = line[digits..].iter().find(|byte| !matches!(byte, b' ' | b'\t'));
        let fits = (1..=12).contains(&digits) && after.is_none_or(|&byte| byte == b';');
        let text = std::str::from_utf8(&line[..digits]).map_err(|_| ())?;
        if fits { usize::from_str_radix(text, 16).map_err(|_| ()) } else { Err(()) }
    };
    let mut at = 0;
    loop {
        let Some(text) = line(at)? else { return Ok(None) };
        let size = size_of(text)?;
        at += text.len() + 2;
        if size == 0 {
            break;
        }
        at += size;
        match data.get(at..) {
            Some([b'\r', b'\n', ..]) => at += 2,
            None | Some([] | [b'\r']) => return Ok(None),
            Some(_) => return Err(()),
        }
    }
    loop {
        let Some(text) = line(at)? else { return Ok(None) };
        at += text.len() + 2;
        if text.is_empty() {
            return Ok(Some(at));
        }
    }
}

#[test]
fn bodies_end_in_one_place() {
    let ended = |data: &[u8], size: &mut dyn FnMut() -> usize| -> (Result<usize, Malformed>, bool) {
        let (mut chunks, mut used) = (Chunks::default(), 0);
        while used < data.len() && !chunks.ended() {
            let end = used + size().clamp(1, data.len() - used);
            match chunks.feed(&data[used..end]) {
                Ok(taken) => used += taken,
                Err(Malformed(good)) => return (Err(Malformed(used + good)), false),
            }
        }
        (Ok(used), chunks.ended())
    };
    campaign(DIVISOR, |random| {
        let data = messages::stream(random, b"", messages::chunked);
        let whole = ended(&data, &mut || usize::MAX);
        assert_eq!(whole, ended(&data, &mut || 1));
        assert_eq!(whole, ended(&data, &mut || 1 + random.below(20)));
        match (body_end(&data), whole) {
            (Ok(Some(end)), (Ok(used), true)) => assert_eq!(end, used),
            // What is not whole yet may already be known to be wrong.
            (Ok(None), (Ok(_) | Err(_), false)) | (Err(()), (Err(_), false)) => {}
            (expected, found) => panic!("{expected:?}, not {found:?}"),
        }
    });
}

/// The longest of all messages, and many short ones: what a head starts with, and what comes again and again after it.
fn endless() -> Vec<(&'static str, Vec<u8>, &'static [u8])> {
    let reqmod = |rest: &str| format!("REQMOD icap://b/ ICAP/1.0\r\nAllow: 204\r\n{rest}").into_bytes();
    let long_head = format!("X: {}\r\nEncapsulated: req-hdr=0, null-body=262144\r\n\r\n", "x".repeat(60_000));
    let body =
        |rest: &str| reqmod(&format!("Encapsulated: req-hdr=0, req-body=18\r\n\r\nGET / HTTP/1.1\r\n\r\n{rest}"));
    let frames = |rest: &[u8]| [&messages::hello(), rest].concat();
    vec![
        ("http", b"GET /nginx HTTP/1.1\r\nX: ".to_vec(), b"a"),
        ("http", b"GET /nginx HTTP/1.1\r\n".to_vec(), b"a:b\r\n"),
        ("http", b"GET /nginx HTTP/1.1\r\nX: ".to_vec(), b"\r"),
        ("http", b"".to_vec(), b"\r\n"),
        ("http", b"".to_vec(), b"GET /nginx HTTP/1.1\r\nHost:\r\nX-Original-URL: /\r\n\r\n"),
        ("http", b"".to_vec(), b"GET / HTTP/1.1\r\nHost:\r\nContent-Length: 9\r\n\r\n123456789"),
        ("http", b"GET / HTTP/1.1\r\nHost:\r\nContent-Length: 1048576\r\n\r\n".to_vec(), b"\n"),
        ("icap", reqmod("X: "), b"a"),
        ("icap", reqmod(""), b"a:b\r\n"),
        ("icap", b"".to_vec(), b"\r\n"),
        ("icap", reqmod("Encapsulated: req-hdr=0, null-body=262144\r\n\r\nGET / HTTP/1.1\r\n"), b"Host: a\r\n"),
        ("icap", reqmod("Encapsulated: req-hdr=0, null-body=262144\r\n\r\nGET /"), b"/"),
        ("icap", reqmod("Encapsulated: req-hdr=0, null-body=9999999\r\n\r\nGET /"), b"/"),
        ("icap", reqmod(&long_head), b"/"),
        (
            "icap",
            b"".to_vec(),
            b"REQMOD b ICAP/1.0\r\nEncapsulated: req-hdr=0, null-body=18\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        ),
        ("icap", body(""), b"1\r\nx\r\n"),
        ("icap", body("1;"), b"x"),
        ("icap", body("ffffffffffff\r\n"), b"x"),
        ("icap", body("0\r\n"), b"x: y\r\n"),
        ("spop", b"\x7f\xff\xff\xff".to_vec(), b"\x01"),
        ("spop", frames(b"\0\0\x40\0"), b"\x01"),
        ("spop", b"".to_vec(), b"\0\0\0\x07\x63\0\0\0\x01\0\0"),
        ("spop", frames(&[0, 0, 63, 252, 3, 0, 0, 0, 1, 0, 0]), b"\0"),
        ("spop", frames(b""), b"\0\0\0\x07\x03\0\0\0\x01\0\0"),
        ("spop", frames(&[0, 0, 63, 252, 3, 0, 0, 0, 1, 0, 0]), b"\x05check\0"),
        ("squid", b"7 http://a.example/".to_vec(), b"a"),
        ("squid", b"".to_vec(), b"\n"),
        ("squid", b"".to_vec(), b"7 -\r\n"),
        ("squid", b"".to_vec(), b"%25%2"),
    ]
}

/// Feeds the codec of this name; what it did.
fn named(name: &str, data: &[u8], size: usize) -> Seen {
    let mut desk = Desk::new(true, 6, 300);
    match name {
        "http" => fed(Http::default(), &mut desk, data, || size),
        "icap" => fed(Icap::new(100), &mut desk, data, || size),
        "spop" => fed(Spop::default(), &mut desk, data, || size),
        _ => fed(Squid::new(Style::Matches(Verdict::Block), false), &mut desk, data, || size),
    }
}

fn repeated(head: &[u8], again: &[u8], length: usize) -> Vec<u8> {
    [head, &again.repeat(length.saturating_sub(head.len()) / again.len())].concat()
}

#[test]
fn memory_stays_under_the_stated_bounds() {
    let piece = 64 * 1024;
    for (name, head, again) in endless() {
        // What is held, and for the first three and the last an address of the same length put together from it.
        let bound = match name {
            "http" => 2 * http::MAX_HEAD_BYTES,
            "icap" => icap::MAX_HEAD_BYTES + 2 * icap::MAX_ENCAPSULATED_BYTES,
            "spop" => spop::MAX_FRAME_BYTES + 4,
            _ => 2 * squid::MAX_LINE_BYTES,
        };
        let seen = named(name, &repeated(&head, again, 4 * 1024 * 1024), piece);
        assert!(seen.memory.0 <= 2 * (bound + piece), "{} kept by {name}: {again:?}", seen.memory.0);
        let seen = named(name, &repeated(&head, again, 1024 * 1024), 1);
        assert!(seen.memory.0 <= 2 * bound + 2048, "{} kept by {name}: {again:?}", seen.memory.0);
    }
}

#[test]
fn time_is_linear_in_length() {
    let length = 256 * 1024;
    for (name, head, again) in endless() {
        for size in [1, 1400, usize::MAX] {
            let (eighth, whole) = (repeated(&head, again, length / 8), repeated(&head, again, length));
            let time = |data: &[u8]| {
                let started = Instant::now();
                named(name, data, size);
                started.elapsed()
            };
            // As long as eight eighths, which a busy machine holds up as much; quadratic would be eight times as long.
            let eighths = || (0..8).map(|_| time(&eighth)).sum::<Duration>().max(Duration::from_micros(500));
            let linear = |_| time(&whole) < eighths() * 4;
            assert!((0..10).any(linear), "{name}, {again:?} in {size}");
        }
    }
}
