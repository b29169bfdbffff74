//! The head of a request to the check gateway (RFC 9112): how long the request is, what connection it leaves, where it goes.
//!
//! A proxy stands before this server and sends what it made of a client's request. Whatever two programs could read in two
//! ways is refused, so that no client hides a request in another's: an end of line without CR, two lengths, a length
//! beside a transfer coding, a host that is there twice.

use memchr::memchr_iter;

/// Most headers of one request.
pub const MAX_HEADERS: usize = 100;

/// Why a request gets an error.
#[derive(Clone, Copy)]
pub struct Fault(pub &'static str);

pub const BAD: Fault = Fault("400 Bad Request");
pub const NOT_FOUND: Fault = Fault("404 Not Found");
pub const TOO_MANY: Fault = Fault("431 Request Header Fields Too Large");
const TOO_LARGE: Fault = Fault("413 Content Too Large");
const LENGTH_REQUIRED: Fault = Fault("411 Length Required");
const NOT_IMPLEMENTED: Fault = Fault("501 Not Implemented");

/// Reads a whole head. What this refuses ends the connection.
pub fn parse<'h, 'b>(
    head: &'b [u8],
    headers: &'h mut [httparse::Header<'b>],
) -> Result<httparse::Request<'h, 'b>, Fault> {
    // RFC 9112, section 2.2, allows a bare LF for an end of line; no proxy sends one, and not all read it alike.
    if memchr_iter(b'\n', head).any(|at| at == 0 || head[at - 1] != b'\r') {
        return Err(BAD);
    }
    let mut request = httparse::Request::new(headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => Ok(request),
        Err(httparse::Error::TooManyHeaders) => Err(TOO_MANY),
        _ => Err(BAD),
    }
}

/// How long a request is and what its connection is to be.
pub struct Frame {
    pub body: u64,
    /// Whether it is the last request.
    pub closes: bool,
    /// Whether the answer must say that it is not: HTTP/1.0 expects an end.
    pub tells_stay: bool,
}

impl Frame {
    /// What a refused frame leaves unknown is where the next request begins: the connection ends.
    pub fn of(request: &httparse::Request<'_, '_>, max_body: u64) -> Result<Self, Fault> {
        let old = request.version == Some(0);
        let (mut length, mut coded, mut expects) = (None, None, false);
        let (mut closes, mut stays) = (false, false);
        for header in request.headers.iter() {
            if header.name.eq_ignore_ascii_case("content-length") {
                let parsed = number(header.value).ok_or(BAD)?;
                // Section 6.3: lengths that differ are an attack or a fault.
                if length.replace(parsed).is_some_and(|length| length != parsed) {
                    return Err(BAD);
                }
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                let chunked = header.value.trim_ascii().eq_ignore_ascii_case(b"chunked");
                // Section 6.3 lets a server insist on a length; no proxy sends its questions in chunks.
                coded = Some(if chunked && coded.is_none() { LENGTH_REQUIRED } else { NOT_IMPLEMENTED });
            } else if header.name.eq_ignore_ascii_case("connection") {
                for token in header.value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                    closes |= token.eq_ignore_ascii_case(b"close");
                    stays |= token.eq_ignore_ascii_case(b"keep-alive");
                }
            } else if header.name.eq_ignore_ascii_case("expect") {
                // RFC 9110, section 10.1.1: HTTP/1.0 knows no expectation, and waits for none.
                expects |= !old;
            }
        }
        if let Some(fault) = coded {
            // Section 6.1: with a length beside it, or from HTTP/1.0, a coding is how a request is smuggled.
            return Err(if old || length.is_some() { BAD } else { fault });
        }
        let mut body = length.unwrap_or(0);
        if body > max_body {
            return Err(TOO_LARGE);
        }
        // Section 9.3: `close` wins.
        closes |= old && !stays;
        if expects {
            // The answer says all there is to say; the body need not be sent.
            closes = true;
            body = 0;
        }
        Ok(Self { body, closes, tells_stay: old && !closes })
    }
}

/// A length: digits and nothing else, fewer than could overflow.
fn number(value: &[u8]) -> Option<u64> {
    let digits = value.trim_ascii();
    let plain = !digits.is_empty() && digits.len() < 19 && digits.iter().all(u8::is_ascii_digit);
    plain.then(|| digits.iter().fold(0, |number, &digit| number * 10 + u64::from(digit - b'0')))
}

/// The one value of a header; an error if it is there twice.
pub fn value<'a>(headers: &[httparse::Header<'a>], name: &str) -> Result<Option<&'a [u8]>, Fault> {
    let mut found = None;
    for header in headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name)) {
        if found.replace(header.value).is_some() {
            return Err(BAD);
        }
    }
    Ok(found)
}

/// Where a request goes.
pub struct Target<'a> {
    /// As the origin-form has it: path and query; of `CONNECT` the authority.
    pub origin: &'a [u8],
    /// The host that the request is for, with its port; None only in HTTP/1.0.
    pub host: Option<&'a [u8]>,
}

impl<'a> Target<'a> {
    /// Reads the target in each of its forms, and `Host`, which must be right whether it is looked at or not (RFC 9112, section 3.2).
    pub fn of(request: &httparse::Request<'_, 'a>) -> Result<Self, Fault> {
        let host = value(request.headers, "host")?.map(<[u8]>::trim_ascii);
        if host.map_or(request.version != Some(0), |host| !is_authority(host)) {
            return Err(BAD);
        }
        let target = request.path.unwrap_or("").as_bytes();
        let Some(rest) = without_scheme(target).filter(|_| request.method != Some("CONNECT")) else {
            return Ok(Self { origin: target, host });
        };
        let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
        let (authority, origin) = rest.split_at(end);
        if authority.is_empty() || !is_authority(authority) {
            return Err(BAD);
        }
        // Section 3.2.2: the host is that of the target then, whatever the header says.
        Ok(Self { origin, host: Some(authority) })
    }
}

/// What follows `http://` or `https://`; None: the target is not in absolute-form.
fn without_scheme(target: &[u8]) -> Option<&[u8]> {
    if target.first() == Some(&b'/') {
        return None; // each request but the rarest
    }
    ["http://", "https://"].into_iter().find_map(|scheme| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme.as_bytes()).then_some(rest)
    })
}

/// Whether these bytes may stand in a host with a port (RFC 3986, section 3.2). Nothing that ends an authority may: the
/// host asked about would not be the one that the proxy connects to. Nor may a user's name (RFC 9110, section 4.2.4).
fn is_authority(text: &[u8]) -> bool {
    text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(byte))
}
