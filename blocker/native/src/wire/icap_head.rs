//! The head of an ICAP request (RFC 3507, sections 4.3 to 4.6): what of it matters here.

use memchr::memchr;

/// Most fields.
const MAX_FIELDS: usize = 64;

/// Why a request gets an error.
#[derive(Clone, Copy)]
pub struct Fault(pub &'static str);

pub const BAD: Fault = Fault("400 Bad Request");
pub const TOO_LARGE: Fault = Fault("413 Request Entity Too Large");

/// What an ICAP head says.
#[derive(Default)]
pub struct Head {
    pub method: Method,
    /// Length of the encapsulated head, and whether a body follows.
    pub encapsulated: Option<(usize, bool)>,
    pub takes_204: bool,
    pub closes: bool,
}

/// What is asked for.
#[derive(Default, PartialEq, Eq)]
pub enum Method {
    Options,
    Reqmod,
    #[default]
    Other,
}

impl Head {
    /// Reads a whole head.
    pub fn parse(head: &[u8]) -> Result<Self, Fault> {
        let line = memchr(b'\n', head).ok_or(BAD)?;
        let mut words = head[..line].trim_ascii_end().split(|&byte| byte == b' ');
        let method = words.next().ok_or(BAD)?;
        let (address, version) = (words.next().ok_or(BAD)?, words.next().ok_or(BAD)?);
        if address.is_empty() || words.next().is_some() {
            return Err(BAD);
        }
        if version != b"ICAP/1.0" {
            return Err(if version.starts_with(b"ICAP/") { Fault("505 ICAP Version Not Supported") } else { BAD });
        }
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let Ok(httparse::Status::Complete((_, fields))) = httparse::parse_headers(&head[line + 1..], &mut fields)
        else {
            return Err(BAD);
        };
        let mut found = Self::default();
        match method {
            b"OPTIONS" => found.method = Method::Options,
            b"REQMOD" => found.method = Method::Reqmod,
            _ => {}
        }
        for field in fields {
            if field.name.eq_ignore_ascii_case("encapsulated") {
                if found.encapsulated.replace(encapsulated(field.value)?).is_some() {
                    return Err(BAD);
                }
            } else if field.name.eq_ignore_ascii_case("preview") {
                // RFC 3507, section 4.5: who sends a preview takes 204 for an answer.
                found.takes_204 = true;
            } else if field.name.eq_ignore_ascii_case("allow") {
                found.takes_204 |= tokens(field.value).any(|token| token == b"204");
            } else if field.name.eq_ignore_ascii_case("connection") {
                found.closes |= tokens(field.value).any(|token| token.eq_ignore_ascii_case(b"close"));
            }
        }
        Ok(found)
    }
}

fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii)
}

/// `req-hdr=0, req-body=N` (section 4.4.1): N, and whether a body follows. Of a message without a head (`OPTIONS`): 0.
fn encapsulated(value: &[u8]) -> Result<(usize, bool), Fault> {
    let mut parts = tokens(value);
    let mut part = || -> Result<Option<(&[u8], usize)>, Fault> {
        let Some(text) = parts.next() else { return Ok(None) };
        let equals = memchr(b'=', text).ok_or(BAD)?;
        let digits = text[equals + 1..].trim_ascii();
        let plain = !digits.is_empty() && digits.len() < 10 && digits.iter().all(u8::is_ascii_digit);
        let number = std::str::from_utf8(digits).ok().filter(|_| plain).and_then(|text| text.parse().ok());
        Ok(Some((text[..equals].trim_ascii(), number.ok_or(BAD)?)))
    };
    let (first, second, more) = (part()?.ok_or(BAD)?, part()?, part()?);
    let body = |name: &[u8]| match name {
        b"req-body" | b"opt-body" => Ok(true),
        b"null-body" => Ok(false),
        _ => Err(BAD),
    };
    match (first, second, more) {
        ((b"req-hdr", 0), Some((name, length)), None) if length > 0 => Ok((length, body(name)?)),
        ((name, 0), None, None) => Ok((0, body(name)?)),
        _ => Err(BAD),
    }
}
