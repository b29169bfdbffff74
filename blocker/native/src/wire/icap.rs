//! ICAP (RFC 3507), request modification: a proxy sends what it is asked for and gets it back unchanged, or the stop page.
//!
//! | asked | answered |
//! |---|---|
//! | `OPTIONS` | what there is: `REQMOD`, `Allow: 204`, `Preview: 0` |
//! | `REQMOD` of a request that is let through | 204; 200 and the request as it came where the client takes no 204 |
//! | `REQMOD` of a request for a listed page | 200 with a response in it: 451 and the stop page |
//! | `REQMOD` of `CONNECT` | as above, by what is known of the host alone |
//!
//! Every answer has `ISTag`, which moves with the lists, so that a proxy drops what it kept; and the verdict and its list in
//! `X-Blocker-Verdict` and `X-Blocker-List`. Who asks stands in `X-Client-IP` and its like, which nothing here looks at:
//! of the ICAP head four fields are read, of the encapsulated one the request line, `Host` and `Accept-Language`.
//!
//! An answer is written once the preview, or the body, has arrived, since many a client does not read before; an echo is
//! written as it comes. Bounds: an ICAP head of 64 KiB, an encapsulated one of 256 KiB, 1 KiB for a chunk's size, 64 KiB of
//! trailers. Bodies have none, because none is kept.

use memchr::memchr;

use super::chunked::{Chunks, Malformed};
use super::held::Held;
use super::http::{head_end, without_port};
use super::icap_head::{BAD, Fault, Head, Method, TOO_LARGE};
use super::{Answer, Codec, Decide, Flow};
use crate::decide::Verdict;

/// Longest ICAP head.
pub const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Longest encapsulated head: an URL of 64 KiB with each byte escaped, and room for headers.
pub const MAX_ENCAPSULATED_BYTES: usize = 256 * 1024;
/// How long what `OPTIONS` says may be kept, in seconds.
const OPTIONS_SECONDS: u32 = 60;

/// One connection.
pub struct Icap {
    /// Told to clients, which then open no more.
    max_connections: u32,
    /// The beginning of a head, or of two, that are not whole.
    held: Held,
    /// How much of it was searched for the end of the ICAP head.
    searched: usize,
    /// How much of it there must be before it is worth looking again.
    needed: usize,
    /// The body under way.
    body: Option<Body>,
    /// The address, put together; kept for its memory only.
    url: Vec<u8>,
    draining: bool,
}

/// What is done with the body of a request.
struct Body {
    chunks: Chunks,
    /// What is written at its end; None: it is handed back as it comes.
    answer: Option<Vec<u8>>,
    closes: bool,
}

/// The end of an answer that has nothing in it.
const NOTHING: &str = "Encapsulated: null-body=0\r\n\r\n";

impl Icap {
    /// `max_connections`: what `OPTIONS` says of how many the service takes.
    pub fn new(max_connections: u32) -> Self {
        Self {
            max_connections,
            held: Held::default(),
            searched: 0,
            needed: 0,
            body: None,
            url: Vec::new(),
            draining: false,
        }
    }

    /// Takes in what it can; hands back what is left of an unfinished head.
    fn consume<'a, D: Decide>(&mut self, mut input: &'a [u8], gate: &mut D, output: &mut Vec<u8>) -> (Flow, &'a [u8]) {
        loop {
            if let Some(body) = &mut self.body {
                let taken = body.chunks.feed(input);
                let (Ok(used) | Err(Malformed(used))) = taken;
                if body.answer.is_none() {
                    output.extend_from_slice(&input[..used]);
                }
                if taken.is_err() {
                    // In the middle of an echo only the end of the connection can say so.
                    if body.answer.is_some() {
                        refuse(BAD, gate, output);
                    }
                    return (Flow::Close, &[]);
                }
                input = &input[used..];
                if !body.chunks.ended() {
                    return (Flow::Open, input);
                }
                output.extend_from_slice(body.answer.as_deref().unwrap_or(b""));
                let closes = body.closes;
                self.body = None;
                if closes {
                    return (Flow::Close, &[]);
                }
            }
            while self.searched == 0 && matches!(input.first(), Some(b'\r' | b'\n')) {
                input = &input[1..];
            }
            if input.is_empty() || input.len() < self.needed {
                return (Flow::Open, input);
            }
            match self.request(input, gate, output) {
                Ok(Some((Flow::Open, used))) => {
                    (self.searched, self.needed) = (0, 0);
                    input = &input[used..];
                }
                Ok(Some((Flow::Close, _))) => return (Flow::Close, &[]),
                Ok(None) => return (Flow::Open, input),
                Err(fault) => {
                    refuse(fault, gate, output);
                    return (Flow::Close, &[]);
                }
            }
        }
    }

    /// Answers the request that the input begins with: how it goes on, and the length of its heads. None: not whole yet.
    fn request<D: Decide>(
        &mut self,
        input: &[u8],
        gate: &mut D,
        output: &mut Vec<u8>,
    ) -> Result<Option<(Flow, usize)>, Fault> {
        let Some(end) = head_end(input, self.searched) else {
            self.searched = input.len();
            return if input.len() > MAX_HEAD_BYTES { Err(TOO_LARGE) } else { Ok(None) };
        };
        if end > MAX_HEAD_BYTES {
            return Err(TOO_LARGE);
        }
        let head = Head::parse(&input[..end])?;
        let closes = head.closes || self.draining;
        let flow = if closes { Flow::Close } else { Flow::Open };
        match head.method {
            Method::Options if matches!(head.encapsulated, None | Some((0, false))) => {
                self.options(closes, gate, output);
                return Ok(Some((flow, end)));
            }
            Method::Reqmod => {}
            Method::Options => return Err(BAD),
            Method::Other => return Err(Fault("405 Method Not Allowed")),
        }
        let (length, has_body) = head.encapsulated.ok_or(BAD)?;
        if length > MAX_ENCAPSULATED_BYTES {
            return Err(TOO_LARGE);
        }
        let Some(request) = input.get(end..end + length) else {
            // The empty line that ends the ICAP head has to be found again, and not the one after it.
            (self.searched, self.needed) = (end - 1, end + length);
            return Ok(None);
        };
        let answered = self.decide(request, gate);
        let echoes = matches!(answered, Some(Ok((Verdict::Allow | Verdict::Inspect, _)))) && !head.takes_204;
        let mut answer = Vec::new();
        let written = if has_body && !echoes { &mut answer } else { &mut *output };
        match answered {
            Some(Ok((Verdict::Block, list))) => stop(request, &list, closes, gate, written),
            Some(Ok((verdict, list))) if echoes => {
                let kind = if has_body { "req-body" } else { "null-body" };
                let place = format!("Encapsulated: req-hdr=0, {kind}={length}\r\n\r\n");
                start("200 OK", Some((verdict, &list)), closes, gate, written).push(&place);
                written.extend_from_slice(request);
            }
            other => {
                let (status, decided) = match &other {
                    None => ("503 Service Overloaded", None),
                    Some(Err(fault)) => (fault.0, None),
                    Some(Ok((verdict, list))) => ("204 No Modifications Needed", Some((*verdict, list.as_str()))),
                };
                start(status, decided, closes, gate, written).push(NOTHING);
            }
        }
        if has_body {
            self.body = Some(Body { chunks: Chunks::default(), answer: (!echoes).then_some(answer), closes });
            return Ok(Some((Flow::Open, end + length)));
        }
        Ok(Some((flow, end + length)))
    }

    fn options<D: Decide>(&self, closes: bool, gate: &D, output: &mut Vec<u8>) {
        start("200 OK", None, closes, gate, output)
            .push("Methods: REQMOD\r\nService: Blocker\r\nAllow: 204\r\nPreview: 0\r\nTransfer-Preview: *\r\n")
            .push(&format!("Max-Connections: {}\r\nOptions-TTL: {OPTIONS_SECONDS}\r\n", self.max_connections))
            .push(NOTHING);
    }

    /// Verdict and list; None: this node has nothing to decide with.
    fn decide<D: Decide>(&mut self, request: &[u8], gate: &mut D) -> Option<Result<(Verdict, String), Fault>> {
        self.url.clear();
        let decided = match asked(request, &mut self.url) {
            Ok(None) => gate.url(&self.url),
            Ok(Some(host)) => gate.host(host),
            Err(fault) => return Some(Err(fault)),
        };
        // The list's name is lent by the gate, which is needed again for tag and page; nearly always it is empty.
        decided.map(|Answer { verdict, list }| Ok((verdict, list.to_owned())))
    }
}

impl Codec for Icap {
    fn feed<D: Decide>(&mut self, input: &[u8], gate: &mut D, output: &mut Vec<u8>) -> Flow {
        let mut held = std::mem::take(&mut self.held);
        let flow = held.feed(input, |data| self.consume(data, gate, output));
        self.held = held;
        flow
    }

    fn unfinished(&self) -> bool {
        !self.held.is_empty() || self.body.is_some()
    }

    fn memory(&self) -> usize {
        let answer = self.body.as_ref().and_then(|body| body.answer.as_ref()).map_or(0, Vec::capacity);
        self.held.memory() + self.url.capacity() + answer
    }

    fn drain(&mut self) {
        self.draining = true;
    }
}

/// What an encapsulated request asks for: a host, or an address that is put together in `url`.
fn asked<'a>(request: &'a [u8], url: &mut Vec<u8>) -> Result<Option<&'a [u8]>, Fault> {
    let line = &request[..memchr(b'\n', request).ok_or(BAD)?].trim_ascii_end();
    let space = memchr(b' ', line).ok_or(BAD)?;
    let (method, rest) = (&line[..space], line[space + 1..].trim_ascii());
    let target = match memchr::memrchr(b' ', rest) {
        Some(last) if rest[last + 1..].starts_with(b"HTTP/") => rest[..last].trim_ascii(),
        _ => rest,
    };
    if target.is_empty() {
        return Err(BAD);
    }
    if method == b"CONNECT" {
        return Ok(Some(without_port(target)));
    }
    if target[0] == b'/' || target == b"*" {
        url.extend_from_slice(b"http://");
        url.extend_from_slice(field(request, b"host")?.ok_or(BAD)?);
        url.extend_from_slice(if target == b"*" { b"/" } else { target });
    } else {
        url.extend_from_slice(target);
    }
    Ok(None)
}

/// The one value of a field of an encapsulated head; an error if it is there twice.
///
/// Not by the parser of the other heads, since the proxy took this one for good, whatever else is in it.
fn field<'a>(head: &'a [u8], name: &[u8]) -> Result<Option<&'a [u8]>, Fault> {
    let mut found = None;
    let lines = head.split(|&byte| byte == b'\n').skip(1);
    for line in lines.take_while(|line| !matches!(*line, b"" | b"\r")) {
        let Some(colon) = memchr(b':', line) else { continue };
        if line[..colon].trim_ascii_end().eq_ignore_ascii_case(name)
            && found.replace(line[colon + 1..].trim_ascii()).is_some()
        {
            return Err(BAD);
        }
    }
    Ok(found)
}

/// Text at the end of an answer.
struct Text<'a>(&'a mut Vec<u8>);

impl Text<'_> {
    fn push(&mut self, text: &str) -> &mut Self {
        self.0.extend_from_slice(text.as_bytes());
        self
    }
}

fn start<'a, D: Decide>(
    status: &str,
    decided: Option<(Verdict, &str)>,
    closes: bool,
    gate: &D,
    output: &'a mut Vec<u8>,
) -> Text<'a> {
    let mut text = Text(output);
    text.push("ICAP/1.0 ").push(status).push("\r\nISTag: \"").push(gate.tag()).push("\"\r\n");
    if let Some((verdict, list)) = decided {
        text.push("X-Blocker-Verdict: ").push(verdict.name()).push("\r\n");
        if !list.is_empty() {
            text.push("X-Blocker-List: ").push(list).push("\r\n");
        }
    }
    if closes {
        text.push("Connection: close\r\n");
    }
    text
}

/// The stop page as the answer to a request.
fn stop<D: Decide>(request: &[u8], list: &str, closes: bool, gate: &D, output: &mut Vec<u8>) {
    let page = gate.page(list, field(request, b"accept-language").ok().flatten().unwrap_or(b""));
    let status = b"HTTP/1.1 451 Unavailable For Legal Reasons\r\n";
    let length = status.len() + page.head.len() + 2;
    // A client that asked for no body gets the head alone.
    let bare = page.body.is_empty() || request.starts_with(b"HEAD ");
    let kind = if bare { "null-body" } else { "res-body" };
    let place = format!("Encapsulated: res-hdr=0, {kind}={length}\r\n\r\n");
    start("200 OK", Some((Verdict::Block, list)), closes, gate, output).push(&place);
    for part in [status, page.head, b"\r\n"] {
        output.extend_from_slice(part);
    }
    if !bare {
        output.extend_from_slice(format!("{:x}\r\n", page.body.len()).as_bytes());
        output.extend_from_slice(page.body);
        output.extend_from_slice(b"\r\n0\r\n\r\n");
    }
}

/// An error that ends the connection.
fn refuse<D: Decide>(fault: Fault, gate: &D, output: &mut Vec<u8>) {
    start(fault.0, None, true, gate, output).push(NOTHING);
}
