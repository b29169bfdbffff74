//! DNS messages as they are read: strictly, and without trust in any length.
//!
//! A message (RFC 1035, section 4; integers are big-endian):
//!
//! 1. header, 12 bytes: id, flags, and four counts (questions, answers, authorities, additional records)
//! 2. questions: a name, its type (2 bytes), its class (2)
//! 3. records: a name, type (2), class (2), TTL (4), length of the data (2), the data
//!
//! A name is labels, each a length (at most 63) and its bytes, ended by a zero; or a pointer to an earlier name. Of a
//! query exactly one question is taken (RFC 9619), whose name cannot have a pointer, since nothing stands before it.

/// The header's length.
pub const HEADER_BYTES: usize = 12;
/// The longest name on the wire (RFC 1035, section 2.3.4).
pub const MAX_NAME_BYTES: usize = 255;

/// Flags of the header.
pub mod flag {
    /// It is a response.
    pub const QR: u16 = 0x8000;
    /// Authoritative answer.
    pub const AA: u16 = 0x0400;
    /// Truncated.
    pub const TC: u16 = 0x0200;
    /// Recursion desired.
    pub const RD: u16 = 0x0100;
    /// Recursion available.
    pub const RA: u16 = 0x0080;
    /// Authenticated data (RFC 4035; in a query: RFC 6840, section 5.7).
    pub const AD: u16 = 0x0020;
    /// Checking disabled (RFC 4035).
    pub const CD: u16 = 0x0010;
    /// The kind of query.
    pub const OPCODE: u16 = 0x7800;
}

/// Types of records, and of questions.
pub mod kind {
    /// IPv4 address.
    pub const A: u16 = 1;
    /// Name server.
    pub const NS: u16 = 2;
    /// Alias.
    pub const CNAME: u16 = 5;
    /// Start of authority.
    pub const SOA: u16 = 6;
    /// Host information; what ANY gets (RFC 8482).
    pub const HINFO: u16 = 13;
    /// Text.
    pub const TXT: u16 = 16;
    /// IPv6 address.
    pub const AAAA: u16 = 28;
    /// EDNS (RFC 6891).
    pub const OPT: u16 = 41;
    /// Service binding (RFC 9460).
    pub const SVCB: u16 = 64;
    /// The same for HTTPS.
    pub const HTTPS: u16 = 65;
    /// Incremental transfer.
    pub const IXFR: u16 = 251;
    /// Transfer.
    pub const AXFR: u16 = 252;
    /// Whatever there is.
    pub const ANY: u16 = 255;
}

/// The Internet's class.
pub const CLASS_IN: u16 = 1;
/// The option that hides how long a message would be (RFC 7830).
pub const OPTION_PADDING: u16 = 12;
/// The option of Extended DNS Errors (RFC 8914).
pub const OPTION_ERROR: u16 = 15;

/// How a query went (RFC 1035, section 4.1.1; RFC 6891, section 9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rcode {
    /// Well.
    #[default]
    NoError = 0,
    /// The query cannot be read.
    FormErr = 1,
    /// It cannot be answered now.
    ServFail = 2,
    /// There is no such name.
    NxDomain = 3,
    /// Such queries are not answered by anybody here.
    NotImp = 4,
    /// Such queries are not answered for this client.
    Refused = 5,
    /// A version of EDNS that is not known here.
    BadVers = 16,
}

/// What the asker's OPT record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    /// The longest datagram that the asker takes.
    pub size: u16,
    /// Whether DNSSEC records are wanted.
    pub dnssec_ok: bool,
    /// Whether a structured error is understood (draft-ietf-dnsop-structured-dns-error).
    pub structured: bool,
    /// Whether answers are to be padded (RFC 7830), where nobody can read them.
    pub padded: bool,
    version: u8,
}

impl Edns {
    fn read(record: &Record, data: &[u8], structured_option: u16) -> Result<Self, Rcode> {
        let [_, version, high, _] = record.ttl.to_be_bytes();
        let mut edns =
            Self { size: record.class, dnssec_ok: high & 0x80 != 0, structured: false, padded: false, version };
        for option in Options(data) {
            let (code, value) = option?;
            edns.padded |= code == OPTION_PADDING;
            // The option of the later drafts is empty; the earlier ones had an error of code 0 and no text say the same.
            edns.structured |= code == structured_option || (code == OPTION_ERROR && value == [0, 0]);
        }
        Ok(edns)
    }
}

/// The options of an OPT record: code and value.
pub struct Options<'a>(pub &'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = Result<(u16, &'a [u8]), Rcode>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let mut reader = Reader { message: self.0, at: 0 };
        let mut read = || {
            let (code, length) = (reader.u16()?, reader.u16()?);
            Ok((code, reader.take(usize::from(length))?))
        };
        let option = read();
        self.0 = if option.is_ok() { &self.0[reader.at..] } else { &[] };
        Some(option)
    }
}

/// A query, as far as it could be read.
#[derive(Clone, Debug)]
pub struct Query<'a> {
    /// Repeated in the answer.
    pub id: u16,
    /// All flags of the header.
    pub flags: u16,
    /// The question: name, type and class; empty if it could not be read.
    pub question: &'a [u8],
    /// The question's type.
    pub kind: u16,
    /// The question's class.
    pub class: u16,
    /// None: the asker knows no EDNS.
    pub edns: Option<Edns>,
    /// Length of the whole query.
    pub bytes: usize,
    /// What is wrong with it.
    pub fault: Option<Rcode>,
}

impl<'a> Query<'a> {
    /// Reads a query. None: it is a response, or has no whole header, so that nothing can be answered.
    ///
    /// `structured_option`: code of the option that asks for structured errors; 0 if there is none.
    pub fn parse(message: &'a [u8], structured_option: u16) -> Option<Self> {
        let header = message.first_chunk::<HEADER_BYTES>()?;
        let flags = u16::from_be_bytes([header[2], header[3]]);
        if flags & flag::QR != 0 {
            return None;
        }
        let mut query = Self {
            id: u16::from_be_bytes([header[0], header[1]]),
            flags,
            question: &[],
            kind: 0,
            class: 0,
            edns: None,
            bytes: message.len(),
            fault: None,
        };
        query.fault = query.read(message, structured_option).err();
        Some(query)
    }

    fn read(&mut self, message: &'a [u8], structured_option: u16) -> Result<(), Rcode> {
        if self.flags & flag::OPCODE != 0 {
            return Err(Rcode::NotImp);
        }
        let [questions, answers, authorities, additional] = counts(message);
        let mut reader = Reader { message, at: HEADER_BYTES };
        if questions != 1 {
            return Err(Rcode::FormErr);
        }
        reader.plain_name()?;
        (self.kind, self.class) = (reader.u16()?, reader.u16()?);
        self.question = &message[HEADER_BYTES..reader.at];
        // Only a query for an incremental transfer has a record there: the version that the asker has.
        if answers != 0 || (authorities != 0 && self.kind != kind::IXFR) {
            return Err(Rcode::FormErr);
        }
        for _ in 0..authorities {
            reader.record()?;
        }
        for _ in 0..additional {
            let record = reader.record()?;
            if record.kind == kind::OPT {
                // One, and its owner is the root (RFC 6891, section 6.1.1).
                if self.edns.is_some() || message[record.owner] != 0 {
                    return Err(Rcode::FormErr);
                }
                let data = &message[record.data..record.end];
                self.edns = Some(Edns::read(&record, data, structured_option)?);
            }
        }
        match self.edns {
            _ if reader.at != message.len() => Err(Rcode::FormErr),
            Some(edns) if edns.version != 0 => Err(Rcode::BadVers),
            _ => Ok(()),
        }
    }

    /// The question's name on the wire, its last zero included.
    pub fn name(&self) -> &'a [u8] {
        &self.question[..self.question.len().saturating_sub(4)]
    }
}

/// The name that a query of any kind asks about; None: it is a response, is cut, or has none.
pub fn asked_name(message: &[u8]) -> Option<&[u8]> {
    let header = message.first_chunk::<HEADER_BYTES>()?;
    if header[2] & 0x80 != 0 || counts(message)[0] == 0 {
        return None;
    }
    let mut reader = Reader { message, at: HEADER_BYTES };
    reader.plain_name().ok()?;
    Some(&message[HEADER_BYTES..reader.at])
}

/// The four counts of a header.
pub fn counts(message: &[u8]) -> [u16; 4] {
    std::array::from_fn(|at| u16::from_be_bytes([message[4 + 2 * at], message[5 + 2 * at]]))
}

/// Where the parts of a record are in its message.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// Its name.
    pub owner: usize,
    /// Its type.
    pub kind: u16,
    /// Its class.
    pub class: u16,
    /// Its TTL, in seconds; of OPT other things.
    pub ttl: u32,
    /// Its data.
    pub data: usize,
    /// The end of the data.
    pub end: usize,
}

impl Record {
    /// Where the TTL stands.
    pub fn ttl_at(&self) -> usize {
        self.data - 6
    }
}

/// Reads on through a message.
pub struct Reader<'a> {
    /// The whole message.
    pub message: &'a [u8],
    /// What comes next.
    pub at: usize,
}

impl<'a> Reader<'a> {
    /// So many bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Rcode> {
        let taken = self.message.get(self.at..self.at + count).ok_or(Rcode::FormErr)?;
        self.at += count;
        Ok(taken)
    }

    /// An integer of two bytes.
    pub fn u16(&mut self) -> Result<u16, Rcode> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// Reads a name, and writes it without pointers.
    pub fn name(&mut self, out: &mut Vec<u8>) -> Result<(), Rcode> {
        out.clear();
        let mut at = self.at;
        self.skip_name()?;
        loop {
            // Each piece begins before the one that leads to it, so that this ends.
            let mut piece = Reader { message: self.message, at };
            let pointed = piece.skip_name()?;
            let end = piece.at - if pointed { 2 } else { 0 };
            out.extend_from_slice(&self.message[at..end]);
            if out.len() > MAX_NAME_BYTES {
                return Err(Rcode::FormErr);
            }
            if !pointed {
                return Ok(());
            }
            at = usize::from(u16::from_be_bytes([self.message[end], self.message[end + 1]]) & 0x3fff);
        }
    }

    /// Skips a name that has no pointer.
    pub fn plain_name(&mut self) -> Result<(), Rcode> {
        self.skip_name().and_then(|pointed| if pointed { Err(Rcode::FormErr) } else { Ok(()) })
    }

    /// Skips a name; tells whether it ends in a pointer, which is not followed: it can only lead backwards.
    fn skip_name(&mut self) -> Result<bool, Rcode> {
        let start = self.at;
        loop {
            let length = usize::from(self.take(1)?[0]);
            match length {
                0 => break,
                1..=63 => {
                    self.take(length)?;
                }
                0xc0.. => {
                    let target = (length & 0x3f) << 8 | usize::from(self.take(1)?[0]);
                    if target < HEADER_BYTES || target >= start {
                        return Err(Rcode::FormErr);
                    }
                    return Ok(true);
                }
                _ => return Err(Rcode::FormErr),
            }
            if self.at - start >= MAX_NAME_BYTES {
                return Err(Rcode::FormErr);
            }
        }
        Ok(false)
    }

    /// A record.
    pub fn record(&mut self) -> Result<Record, Rcode> {
        let owner = self.at;
        self.skip_name()?;
        let (kind, class) = (self.u16()?, self.u16()?);
        let ttl = u32::from(self.u16()?) << 16 | u32::from(self.u16()?);
        let length = usize::from(self.u16()?);
        let data = self.at;
        self.take(length)?;
        Ok(Record { owner, kind, class, ttl, data, end: self.at })
    }
}
