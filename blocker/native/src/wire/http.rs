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
//! A target in absolute-form means what it means in origin-form, with its own host instead of `Host`.
//!
//! Each answer has `X-Blocker-Verdict`, and `X-Blocker-List` where a list decides. A header that says the address twice
//! is answered 400: which of the two the proxy will act on is anybody's guess. `CONNECT` asks about a host.
//!
//! Bounds: a head of 256 KiB and 100 headers, a body of 1 MiB, which is skipped. Nothing of a request but the address
//! and `Accept-Language` is kept beyond the call that brought it, save the unread rest of a head.

use memchr::{memchr, memrchr};

use super::held::Held;
use super::http_head::{self, BAD, Fault, Frame, MAX_HEADERS, NOT_FOUND, TOO_MANY, Target, value};
use super::{Answer, Codec, Decide, Flow};
use crate::decide::Verdict;

/// Longest request head: an URL of 64 KiB with each byte escaped, and room for headers.
pub const MAX_HEAD_BYTES: usize = 256 * 1024;
/// Longest body that is skipped.
pub const MAX_BODY_BYTES: u64 = 1024 * 1024;

const UNREADY: Fault = Fault("503 Service Unavailable");
const CLOSES: &str = "Connection: close\r\n";

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
                    refuse(TOO_MANY, output);
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
        let parsed = if head.len() > MAX_HEAD_BYTES { Err(TOO_MANY) } else { http_head::parse(head, &mut headers) };
        let (request, frame) =
            match parsed.and_then(|request| Frame::of(&request, MAX_BODY_BYTES).map(|frame| (request, frame))) {
                Ok(read) => read,
                Err(fault) => {
                    refuse(fault, output);
                    return Flow::Close;
                }
            };
        let method = request.method.unwrap_or("");
        self.url.clear();
        let asked = asked(&request, &mut self.url);
        let closes = frame.closes || self.draining;
        let after = match (closes, frame.tells_stay) {
            (true, _) => CLOSES,
            (false, true) => "Connection: keep-alive\r\n",
            (false, false) => "",
        };
        let accepted = || value(request.headers, "accept-language").ok().flatten().unwrap_or(b"");
        match asked {
            Err(fault) => error(fault, after, output),
            Ok(asked) => {
                let (style, answer) = match asked {
                    Asked::Url(style) => (style, gate.url(&self.url)),
                    Asked::Host(style) => (style, gate.host(&self.url)),
                };
                match answer {
                    None => error(UNREADY, after, output),
                    // The page is looked up by the list's name, which the answer lends from the gate.
                    Some(answer) if answer.verdict == Verdict::Block && style == Style::Page => {
                        let list = answer.list.to_owned();
                        let page = gate.page(&list, accepted());
                        start("451 Unavailable For Legal Reasons", "block", &list, after, output);
                        output.extend_from_slice(page.head);
                        output.extend_from_slice(b"\r\n");
                        if method != "HEAD" {
                            output.extend_from_slice(page.body);
                        }
                    }
                    Some(answer) => decided(answer, style, method == "HEAD", after, output),
                }
            }
        }
        self.body = frame.body;
        self.last = closes;
        if closes && frame.body == 0 { Flow::Close } else { Flow::Open }
    }
}

/// What is asked; the address or the host is put together in `url`.
fn asked(request: &httparse::Request<'_, '_>, url: &mut Vec<u8>) -> Result<Asked, Fault> {
    let Target { origin: target, host } = Target::of(request)?;
    if request.method == Some("CONNECT") {
        url.extend_from_slice(without_port(target));
        return Ok(Asked::Host(Style::Page));
    }
    let headers = &*request.headers;
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

fn start(status: &str, verdict: &str, list: &str, after: &str, output: &mut Vec<u8>) {
    for part in ["HTTP/1.1 ", status, "\r\nX-Blocker-Verdict: ", verdict] {
        output.extend_from_slice(part.as_bytes());
    }
    if !list.is_empty() {
        output.extend_from_slice(b"\r\nX-Blocker-List: ");
        output.extend_from_slice(list.as_bytes());
    }
    output.extend_from_slice(b"\r\n");
    output.extend_from_slice(after.as_bytes());
}

fn decided(answer: Answer<'_>, style: Style, bare: bool, after: &str, output: &mut Vec<u8>) {
    let verdict = answer.verdict.name();
    match (style, answer.verdict) {
        (Style::Words, _) => {
            let body = format!("{verdict} {}", answer.list);
            let body = body.trim_ascii_end();
            start("200 OK", verdict, answer.list, after, output);
            let head = format!("Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n", body.len() + 1);
            output.extend_from_slice(head.as_bytes());
            if !bare {
                output.extend_from_slice(body.as_bytes());
                output.push(b'\n');
            }
        }
        (Style::Status, Verdict::Block) => {
            start("403 Forbidden", verdict, answer.list, after, output);
            output.extend_from_slice(b"Content-Length: 0\r\n\r\n");
        }
        (Style::Status, _) => {
            start("204 No Content", verdict, answer.list, after, output);
            output.extend_from_slice(b"\r\n");
        }
        (Style::Page, _) => {
            start("200 OK", verdict, answer.list, after, output);
            output.extend_from_slice(b"Content-Length: 0\r\n\r\n");
        }
    }
}

/// An error; `after` is the line about the connection.
fn error(fault: Fault, after: &str, output: &mut Vec<u8>) {
    for part in ["HTTP/1.1 ", fault.0, "\r\nContent-Length: 0\r\n", after, "\r\n"] {
        output.extend_from_slice(part.as_bytes());
    }
}

/// An error that ends the connection.
fn refuse(fault: Fault, output: &mut Vec<u8>) {
    error(fault, CLOSES, output);
}
