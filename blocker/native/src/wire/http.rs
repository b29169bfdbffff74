//! HTTP/1.1 sub-requests: a proxy asks about each of its requests by one of its own (RFC 9112).
//!
//! What is asked stands in another place with each proxy, and a client of the proxy may send any header. So the path,
//! which only the proxy's configuration chooses, says where the address is, and nothing is looked at elsewhere:
//!
//! | path | the address is | allow, inspect | block |
//! |---|---|---|---|
//! | `/nginx` | `X-Original-URL` | 204 | 403, which `auth_request` takes for a refusal |
//! | `/forward` | `X-Forwarded-Proto`, `-Host` and `-Uri` (Traefik, Caddy) | 200 | 451 and the stop page |
//! | `/envoy/…` | `Host` and what follows in the path (`path_prefix`) | 200 | 451 and the stop page |
//! | `/check?url=…`, `/check?host=…` | the parameter, percent-encoded | 200, verdict in words | 200, verdict in words |
//!
//! Each answer has `X-Blocker-Verdict`, and `X-Blocker-List` where a list decides. A header that says the address twice
//! is answered 400: which of the two the proxy will act on is anybody's guess. `CONNECT` asks about a host.
//!
//! Bounds: a head of 256 KiB and 100 headers, a body of 1 MiB, which is skipped. Nothing of a request but the address
//! and `Accept-Language` is kept beyond the call that brought it, save the unread rest of a head.

use memchr::{memchr, memrchr};

use super::held::Held;
use super::{Answer, Codec, Decide, Flow};
use crate::decide::Verdict;

/// Longest request head: an URL of 64 KiB with each byte escaped, and room for headers.
pub const MAX_HEAD_BYTES: usize = 256 * 1024;
/// Longest body that is skipped.
pub const MAX_BODY_BYTES: u64 = 1024 * 1024;
/// Most headers of one request.
const MAX_HEADERS: usize = 100;

/// One connection.
#[derive(Default)]
pub struct Http {
    /// The beginning of a head that is not whole.
    held: Held,
    /// How much of it was searched for its end.
    searched: usize,
    /// Bytes of a body still to be skipped.
    body: u64,
    /// Whether the connection ends after that body.
    last: bool,
    /// Whether the next answer is the last.
    draining: bool,
    /// The address, put together; kept for its memory only.
    url: Vec<u8>,
}

impl Codec for Http {
    fn feed<D: Decide>(&mut self, input: &[u8], gate: &mut D, output: &mut Vec<u8>) -> Flow {
        let mut held = std::mem::take(&mut self.held);
        let flow = held.feed(input, |data| self.consume(data, gate, output));
        self.held = held;
        flow
    }

    fn unfinished(&self) -> bool {
        !self.held.is_empty() || self.body > 0
    }

    fn memory(&self) -> usize {
        self.held.memory() + self.url.capacity()
    }

    fn drain(&mut self) {
        self.draining = true;
    }
}

/// What a request wants to have decided.
enum Asked {
    Url(Style),
    Host(Style),
}

/// How the answer looks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Status,
    Page,
    Words,
}

/// Why a request gets an error.
struct Fault(&'static str);

const BAD: Fault = Fault("400 Bad Request");
const NOT_FOUND: Fault = Fault("404 Not Found");

impl Http {
    /// Answers all whole requests; hands back what is left of an unfinished one.
    fn consume<'a, D: Decide>(&mut self, mut input: &'a [u8], gate: &mut D, output: &mut Vec<u8>) -> (Flow, &'a [u8]) {
        loop {
            if self.body > 0 {
                let skipped = usize::try_from(self.body).map_or(input.len(), |body| body.min(input.len()));
                self.body -= skipped as u64;
                input = &input[skipped..];
                if self.body > 0 {
                    return (Flow::Open, input);
                }
                if self.last {
                    return (Flow::Close, &[]);
                }
            }
            while self.searched == 0 && matches!(input.first(), Some(b'\r' | b'\n')) {
                input = &input[1..]; // RFC 9112, section 2.2: blank lines before a request
            }
            if input.is_empty() {
                return (Flow::Open, input);
            }
            let Some(end) = head_end(input, self.searched) else {
                if input.len() > MAX_HEAD_BYTES {
                    refuse("431 Request Header Fields Too Large", output);
                    return (Flow::Close, &[]);
                }
                self.searched = input.len();
                return (Flow::Open, input);
            };
            self.searched = 0;
            let flow = self.answer(&input[..end], gate, output);
            if flow == Flow::Close {
                return (Flow::Close, &[]);
            }
            input = &input[end..];
        }
    }

    fn answer<D: Decide>(&mut self, head: &[u8], gate: &mut D, output: &mut Vec<u8>) -> Flow {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let parsed = request.parse(head);
        let too_many = matches!(parsed, Err(httparse::Error::TooManyHeaders));
        let (Ok(httparse::Status::Complete(_)), false) = (parsed, head.len() > MAX_HEAD_BYTES) else {
            let status = if too_many || head.len() > MAX_HEAD_BYTES {
                "431 Request Header Fields Too Large"
            } else {
                "400 Bad Request"
            };
            refuse(status, output);
            return Flow::Close;
        };
        let (method, path) = (request.method.unwrap_or(""), request.path.unwrap_or("").as_bytes());
        let Ok(frame) = Frame::of(request.headers, request.version) else {
            refuse("400 Bad Request", output);
            return Flow::Close;
        };
        if frame.body > MAX_BODY_BYTES || frame.chunked {
            refuse(if frame.chunked { "501 Not Implemented" } else { "413 Content Too Large" }, output);
            return Flow::Close;
        }
        self.url.clear();
        let asked = asked(method, path, request.headers, &mut self.url);
        let closes = frame.closes || self.draining;
        let accepted = || value(request.headers, "accept-language").ok().flatten().unwrap_or(b"");
        match asked {
            Err(fault) => error(fault.0, closes, output),
            Ok(asked) => {
                let (style, answer) = match asked {
                    Asked::Url(style) => (style, gate.url(&self.url)),
                    Asked::Host(style) => (style, gate.host(&self.url)),
                };
                match answer {
                    None => error("503 Service Unavailable", closes, output),
                    // The page is looked up by the list's name, which the answer lends from the gate.
                    Some(answer) if answer.verdict == Verdict::Block && style == Style::Page => {
                        let list = answer.list.to_owned();
                        let page = gate.page(&list, accepted());
                        start("451 Unavailable For Legal Reasons", "block", &list, closes, output);
                        output.extend_from_slice(page.head);
                        output.extend_from_slice(b"\r\n");
                        if method != "HEAD" {
                            output.extend_from_slice(page.body);
                        }
                    }
                    Some(answer) => decided(answer, style, method == "HEAD", closes, output),
                }
            }
        }
        self.body = frame.body;
        self.last = closes;
        if closes && frame.body == 0 { Flow::Close } else { Flow::Open }
    }
}

/// How long a request is and whether it is the last.
struct Frame {
    body: u64,
    chunked: bool,
    closes: bool,
}

impl Frame {
    fn of(headers: &[httparse::Header<'_>], version: Option<u8>) -> Result<Self, Fault> {
        let mut frame = Self { body: 0, chunked: false, closes: false };
        let (mut length, mut expects, mut stays) = (None, false, version != Some(0));
        for header in headers {
            if header.name.eq_ignore_ascii_case("content-length") {
                let digits = header.value.trim_ascii();
                let plain = !digits.is_empty() && digits.len() < 19 && digits.iter().all(u8::is_ascii_digit);
                let parsed = std::str::from_utf8(digits).ok().filter(|_| plain).and_then(|text| text.parse().ok());
                // RFC 9112, section 6.3: lengths that differ, or are none, are an attack or a fault.
                if parsed.is_none() || length.is_some_and(|length| Some(length) != parsed) {
                    return Err(BAD);
                }
                length = parsed;
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                frame.chunked = true;
            } else if header.name.eq_ignore_ascii_case("connection") {
                for token in header.value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                    frame.closes |= token.eq_ignore_ascii_case(b"close");
                    stays |= token.eq_ignore_ascii_case(b"keep-alive");
                }
            } else if header.name.eq_ignore_ascii_case("expect") {
                expects = true;
            }
        }
        // RFC 9112, section 9.3: `close` wins.
        frame.closes |= !stays;
        frame.body = length.unwrap_or(0);
        if expects {
            // The answer says all there is to say; the body need not be sent.
            frame.closes = true;
            frame.body = 0;
        }
        Ok(frame)
    }
}

/// The one value of a header; an error if it is there twice.
fn value<'a>(headers: &[httparse::Header<'a>], name: &str) -> Result<Option<&'a [u8]>, Fault> {
    let mut found = None;
    for header in headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name)) {
        if found.replace(header.value).is_some() {
            return Err(BAD);
        }
    }
    Ok(found)
}

/// What is asked; the address or the host is put together in `url`.
fn asked(method: &str, target: &[u8], headers: &[httparse::Header<'_>], url: &mut Vec<u8>) -> Result<Asked, Fault> {
    // RFC 9112, section 3.2: never twice, whether it is looked at or not.
    let host = value(headers, "host")?;
    if method == "CONNECT" {
        url.extend_from_slice(without_port(target));
        return Ok(Asked::Host(Style::Page));
    }
    let path = &target[..memchr(b'?', target).unwrap_or(target.len())];
    match path {
        b"/nginx" => {
            url.extend_from_slice(value(headers, "x-original-url")?.ok_or(BAD)?);
            Ok(Asked::Url(Style::Status))
        }
        b"/forward" => {
            url.extend_from_slice(value(headers, "x-forwarded-proto")?.unwrap_or(b"http"));
            url.extend_from_slice(b"://");
            url.extend_from_slice(value(headers, "x-forwarded-host")?.ok_or(BAD)?);
            url.extend_from_slice(value(headers, "x-forwarded-uri")?.ok_or(BAD)?);
            Ok(Asked::Url(Style::Page))
        }
        b"/check" => {
            let query = target.get(path.len() + 1..).ok_or(BAD)?;
            if let Some(text) = query.strip_prefix(b"url=") {
                unescape(text, url);
                Ok(Asked::Url(Style::Words))
            } else {
                unescape(query.strip_prefix(b"host=").ok_or(BAD)?, url);
                Ok(Asked::Host(Style::Words))
            }
        }
        _ => {
            let rest = target.strip_prefix(b"/envoy").filter(|rest| rest.starts_with(b"/")).ok_or(NOT_FOUND)?;
            url.extend_from_slice(b"http://");
            url.extend_from_slice(host.ok_or(BAD)?);
            url.extend_from_slice(rest);
            Ok(Asked::Url(Style::Page))
        }
    }
}

/// `host:port` without the port; an IPv6 address keeps its brackets.
pub fn without_port(target: &[u8]) -> &[u8] {
    match memrchr(b':', target) {
        Some(colon) if target[colon + 1..].iter().all(u8::is_ascii_digit) => &target[..colon],
        _ => target,
    }
}

/// Percent-decodes a parameter once; `+` stays, since an address is not a form.
pub fn unescape(text: &[u8], out: &mut Vec<u8>) {
    let digit = |at: usize| text.get(at).and_then(|&byte| (byte as char).to_digit(16));
    let mut at = 0;
    while at < text.len() {
        if let (b'%', Some(high), Some(low)) = (text[at], digit(at + 1), digit(at + 2)) {
            out.push((high * 16 + low) as u8);
            at += 3;
        } else {
            out.push(text[at]);
            at += 1;
        }
    }
}

/// Where a head ends: after its first empty line. `searched` bytes are known to hold none.
pub fn head_end(input: &[u8], searched: usize) -> Option<usize> {
    let mut at = searched.saturating_sub(2);
    while let Some(found) = memchr(b'\n', &input[at..]) {
        let line = at + found + 1;
        match &input[line..] {
            [b'\n', ..] => return Some(line + 1),
            [b'\r', b'\n', ..] => return Some(line + 2),
            _ => at = line,
        }
    }
    None
}

fn start(status: &str, verdict: &str, list: &str, closes: bool, output: &mut Vec<u8>) {
    for part in ["HTTP/1.1 ", status, "\r\nX-Blocker-Verdict: ", verdict] {
        output.extend_from_slice(part.as_bytes());
    }
    if !list.is_empty() {
        output.extend_from_slice(b"\r\nX-Blocker-List: ");
        output.extend_from_slice(list.as_bytes());
    }
    output.extend_from_slice(if closes { b"\r\nConnection: close\r\n" } else { b"\r\n" });
}

fn decided(answer: Answer<'_>, style: Style, bare: bool, closes: bool, output: &mut Vec<u8>) {
    let verdict = answer.verdict.name();
    match (style, answer.verdict) {
        (Style::Words, _) => {
            let body = format!("{verdict} {}", answer.list);
            let body = body.trim_ascii_end();
            start("200 OK", verdict, answer.list, closes, output);
            let head = format!("Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n", body.len() + 1);
            output.extend_from_slice(head.as_bytes());
            if !bare {
                output.extend_from_slice(body.as_bytes());
                output.push(b'\n');
            }
        }
        (Style::Status, Verdict::Block) => {
            start("403 Forbidden", verdict, answer.list, closes, output);
            output.extend_from_slice(b"Content-Length: 0\r\n\r\n");
        }
        (Style::Status, _) => {
            start("204 No Content", verdict, answer.list, closes, output);
            output.extend_from_slice(b"\r\n");
        }
        (Style::Page, _) => {
            start("200 OK", verdict, answer.list, closes, output);
            output.extend_from_slice(b"Content-Length: 0\r\n\r\n");
        }
    }
}

/// An error after which the connection goes on.
fn error(status: &str, closes: bool, output: &mut Vec<u8>) {
    output.extend_from_slice(b"HTTP/1.1 ");
    output.extend_from_slice(status.as_bytes());
    output.extend_from_slice(b"\r\nContent-Length: 0\r\n");
    output.extend_from_slice(if closes { b"Connection: close\r\n\r\n" } else { b"\r\n" });
}

/// An error that ends the connection.
fn refuse(status: &str, output: &mut Vec<u8>) {
    error(status, true, output);
}
