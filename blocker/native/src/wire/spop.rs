//! SPOP 2.0, the protocol by which HAProxy asks an agent (HAProxy's doc/SPOE.txt, section 3).
//!
//! A `NOTIFY` frame asks by one message with string arguments: `url`, a whole address; or `host` and `path`, which are put
//! together; or `host` alone, where no more is known. The `ACK` sets two variables of the transaction, `verdict` (`allow`, `inspect`, `block`) and, where
//! a list decides, `list`; HAProxy puts the agent's prefix before the names. Without an answer (nothing asked, or no
//! matcher yet) no variable is set, and the configuration says what that means. Other arguments are skipped unread.
//!
//! `pipelining` is the only capability: fragments and `async` left HAProxy in 3.1. Who breaks the protocol gets the
//! status that the document has for it, and is disconnected. Bounds: one frame, of at most 64 KiB, is held.

use super::held::Held;
use super::{Codec, Decide, Flow};

/// The longest frame that is agreed upon, its length field not counted. HAProxy's own is 16 380 bytes by default.
pub const MAX_FRAME_BYTES: usize = 64 * 1024;
/// The shortest limit that a peer may ask for (section 3.2.4).
const MIN_FRAME_BYTES: usize = 256;

const HAPROXY_HELLO: u8 = 1;
const HAPROXY_DISCONNECT: u8 = 2;
const NOTIFY: u8 = 3;
const AGENT_HELLO: u8 = 101;
const AGENT_DISCONNECT: u8 = 102;
const ACK: u8 = 103;
/// A fragment of an earlier frame.
const UNSET: u8 = 0;

const FIN: u32 = 1;
const UINT32: u8 = 3;
const STRING: u8 = 8;
const BINARY: u8 = 9;
const SET_VAR: u8 = 1;
const SCOPE_TRANSACTION: u8 = 2;

/// Why a connection ends (section 3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Normal = 0,
    TooBig = 3,
    Invalid = 4,
    NoVersion = 5,
    NoFrameSize = 6,
    NoCapabilities = 7,
    UnsupportedVersion = 8,
    BadFrameSize = 9,
    Fragmented = 10,
}

impl Status {
    const fn message(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::TooBig => "frame is too big",
            Self::Invalid => "invalid frame received",
            Self::NoVersion => "version value not found",
            Self::NoFrameSize => "max-frame-size value not found",
            Self::NoCapabilities => "capabilities value not found",
            Self::UnsupportedVersion => "unsupported version",
            Self::BadFrameSize => "max-frame-size too big or too small",
            Self::Fragmented => "fragmentation not supported",
        }
    }
}

/// One connection.
#[derive(Default)]
pub struct Spop {
    /// The beginning of a frame that is not whole.
    held: Held,
    /// The agreed frame size, once there was a HELLO.
    agreed: Option<usize>,
    draining: bool,
}

impl Codec for Spop {
    fn feed<D: Decide>(&mut self, input: &[u8], gate: &mut D, output: &mut Vec<u8>) -> Flow {
        let mut held = std::mem::take(&mut self.held);
        let flow = held.feed(input, |data| self.consume(data, gate, output));
        self.held = held;
        if self.draining && flow == Flow::Open && self.held.is_empty() && !output.is_empty() {
            // All that was asked is answered; HAProxy opens another connection, to somebody else.
            disconnect(Status::Normal, output);
            return Flow::Close;
        }
        flow
    }

    fn unfinished(&self) -> bool {
        !self.held.is_empty() || self.agreed.is_none()
    }

    fn memory(&self) -> usize {
        self.held.memory()
    }

    fn drain(&mut self) {
        self.draining = true;
    }
}

impl Spop {
    /// Answers all whole frames; hands back what is left.
    fn consume<'a, D: Decide>(&mut self, mut input: &'a [u8], gate: &mut D, output: &mut Vec<u8>) -> (Flow, &'a [u8]) {
        while let Some(length) = input.get(..4) {
            let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
            if length > self.agreed.unwrap_or(MAX_FRAME_BYTES) {
                disconnect(Status::TooBig, output);
                return (Flow::Close, &[]);
            }
            let Some(frame) = input.get(4..4 + length) else { break };
            input = &input[4 + length..];
            match self.frame(frame, gate, output) {
                Ok(Flow::Open) => {}
                Ok(Flow::Close) => return (Flow::Close, &[]),
                Err(status) => {
                    disconnect(status, output);
                    return (Flow::Close, &[]);
                }
            }
        }
        (Flow::Open, input)
    }

    fn frame<D: Decide>(&mut self, frame: &[u8], gate: &mut D, output: &mut Vec<u8>) -> Result<Flow, Status> {
        let mut reader = Reader(frame);
        let kind = reader.byte()?;
        let flags = reader.bytes(4)?;
        let flags = u32::from_be_bytes([flags[0], flags[1], flags[2], flags[3]]);
        let (stream, number) = (reader.varint()?, reader.varint()?);
        if kind == UNSET || flags & FIN == 0 {
            return Err(Status::Fragmented);
        }
        match (kind, self.agreed) {
            (HAPROXY_HELLO, None) => self.hello(reader, output),
            (HAPROXY_DISCONNECT, _) => {
                disconnect(Status::Normal, output);
                Ok(Flow::Close)
            }
            (NOTIFY, Some(_)) => {
                notify(reader, stream, number, gate, output)?;
                Ok(Flow::Open)
            }
            (HAPROXY_HELLO | NOTIFY, _) => Err(Status::Invalid),
            // Section 3.2: frames of unknown types are skipped.
            _ => Ok(Flow::Open),
        }
    }

    fn hello(&mut self, mut reader: Reader<'_>, output: &mut Vec<u8>) -> Result<Flow, Status> {
        let (mut versions, mut size, mut capabilities, mut probe) = (None, None, false, false);
        while !reader.0.is_empty() {
            let name = reader.string()?;
            match (name, reader.value()?) {
                (b"supported-versions", Value::Text(text)) => versions = Some(text),
                (b"max-frame-size", Value::Number(number)) => size = Some(number),
                (b"capabilities", Value::Text(_)) => capabilities = true,
                (b"healthcheck", Value::Truth(truth)) => probe = truth,
                _ => {}
            }
        }
        let versions = versions.ok_or(Status::NoVersion)?;
        let size = size.ok_or(Status::NoFrameSize)?;
        if !capabilities {
            return Err(Status::NoCapabilities);
        }
        let supported = |version: &[u8]| version.trim_ascii().split(|&byte| byte == b'.').next() == Some(b"2");
        if !versions.split(|&byte| byte == b',').any(supported) {
            return Err(Status::UnsupportedVersion);
        }
        let size = usize::try_from(size).map_or(MAX_FRAME_BYTES, |size| size.min(MAX_FRAME_BYTES));
        if size < MIN_FRAME_BYTES {
            return Err(Status::BadFrameSize);
        }
        self.agreed = Some(size);
        write_frame(AGENT_HELLO, 0, 0, output, |out| {
            put_string(b"version", out);
            put_text("2.0", out);
            put_string(b"max-frame-size", out);
            out.push(UINT32);
            put_varint(size as u64, out);
            put_string(b"capabilities", out);
            put_text("pipelining", out);
        });
        Ok(if probe { Flow::Close } else { Flow::Open })
    }
}

fn notify<D: Decide>(
    mut reader: Reader<'_>,
    stream: u64,
    number: u64,
    gate: &mut D,
    output: &mut Vec<u8>,
) -> Result<(), Status> {
    let (mut url, mut host, mut path) = (None, None, None);
    while !reader.0.is_empty() {
        reader.string()?;
        for _ in 0..reader.byte()? {
            let name = reader.string()?;
            match (name, reader.value()?) {
                (b"url", Value::Text(text)) => url = url.or(Some(text)),
                (b"host", Value::Text(text)) => host = host.or(Some(text)),
                (b"path", Value::Text(text)) => path = path.or(Some(text)),
                _ => {}
            }
        }
    }
    let answer = match (url, host, path) {
        (Some(url), ..) => gate.url(url),
        (None, Some(host), Some(path)) => gate.url(&[host, path].concat()),
        (None, Some(host), None) => gate.host(host),
        (None, None, _) => None,
    };
    write_frame(ACK, stream, number, output, |out| {
        let Some(answer) = answer else { return };

        put_variable(b"verdict", answer.verdict.name(), out);
        if !answer.list.is_empty() {
            put_variable(b"list", answer.list, out);
        }
    });
    Ok(())
}

fn disconnect(status: Status, output: &mut Vec<u8>) {
    write_frame(AGENT_DISCONNECT, 0, 0, output, |out| {
        put_string(b"status-code", out);
        out.push(UINT32);
        put_varint(status as u64, out);
        put_string(b"message", out);
        put_text(status.message(), out);
    });
}

fn write_frame(kind: u8, stream: u64, number: u64, output: &mut Vec<u8>, payload: impl FnOnce(&mut Vec<u8>)) {
    let start = output.len();
    output.extend_from_slice(&[0; 4]);
    output.push(kind);
    output.extend_from_slice(&FIN.to_be_bytes());
    put_varint(stream, output);
    put_varint(number, output);
    payload(output);
    let length = (output.len() - start - 4) as u32;
    output[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

fn put_variable(name: &[u8], value: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&[SET_VAR, 3, SCOPE_TRANSACTION]);
    put_string(name, out);
    put_text(value, out);
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    out.push(STRING);
    put_string(text.as_bytes(), out);
}

fn put_string(text: &[u8], out: &mut Vec<u8>) {
    put_varint(text.len() as u64, out);
    out.extend_from_slice(text);
}

/// Section 3.1: under 240 one byte; else four bits of the rest in the first byte, then seven in each.
fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    if value < 240 {
        out.push(value as u8);
        return;
    }
    out.push(value as u8 | 0xf0);
    value = (value - 240) >> 4;
    while value >= 128 {
        out.push(value as u8 | 0x80);
        value = (value - 128) >> 7;
    }
    out.push(value as u8);
}

/// A typed value, as far as anything here looks at it.
enum Value<'a> {
    Truth(bool),
    Number(u64),
    Text(&'a [u8]),
    Other,
}

/// What is left of a frame.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], Status> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Status::Invalid)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Status> {
        Ok(self.bytes(1)?[0])
    }

    fn varint(&mut self) -> Result<u64, Status> {
        let mut value = u64::from(self.byte()?);
        if value < 240 {
            return Ok(value);
        }
        let mut shift = 4;
        loop {
            let byte = u64::from(self.byte()?);
            let part = byte.checked_shl(shift).filter(|part| part >> shift == byte).ok_or(Status::Invalid)?;
            value = value.checked_add(part).ok_or(Status::Invalid)?;
            if byte < 128 {
                return Ok(value);
            }
            shift += 7;
        }
    }

    fn string(&mut self) -> Result<&'a [u8], Status> {
        let length = self.varint()?;
        self.bytes(usize::try_from(length).map_err(|_| Status::Invalid)?)
    }

    fn value(&mut self) -> Result<Value<'a>, Status> {
        let kind = self.byte()?;
        match kind & 0x0f {
            0 => Ok(Value::Other),
            1 => Ok(Value::Truth(kind & 0x10 != 0)),
            2..=5 => Ok(Value::Number(self.varint()?)),
            6 => self.bytes(4).map(|_| Value::Other),
            7 => self.bytes(16).map(|_| Value::Other),
            STRING | BINARY => Ok(Value::Text(self.string()?)),
            _ => Err(Status::Invalid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_those_of_other_programs() {
        // Values that other implementations of the protocol test with.
        for (value, bytes) in
            [(239, &[0xef][..]), (240, &[0xf0, 0]), (256, &[0xf0, 1]), (2287, &[0xff, 0x7f]), (2289, &[0xf1, 0x80, 0])]
        {
            let mut out = Vec::new();
            put_varint(value, &mut out);
            assert_eq!(out, bytes);
            assert_eq!(Reader(bytes).varint(), Ok(value));
        }
        for value in [0, 2288, 67_823, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut out = Vec::new();
            put_varint(value, &mut out);
            assert_eq!(Reader(&out).varint(), Ok(value));
        }
        assert_eq!(Reader(&[0xf0]).varint(), Err(Status::Invalid));
        assert_eq!(Reader(&[0xff; 12]).varint(), Err(Status::Invalid));
    }

    #[test]
    fn integers_over_64_bits_are_refused() {
        let mut most = Vec::new();
        put_varint(u64::MAX, &mut most);
        for at in 0..most.len() {
            let mut more = most.clone();
            more[at] += u8::from(more[at] < 0xff);
            assert!(more == most || Reader(&more).varint() == Err(Status::Invalid), "{more:x?}");
        }
        let last = most.len() - 1;
        for high in [0x10, 0x7f] {
            most[last] = high;
            assert_eq!(Reader(&most).varint(), Err(Status::Invalid));
        }
    }
}
