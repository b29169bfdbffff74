//! Where a chunked body ends (RFC 9112, section 7.1), without keeping any of it.

/// Most bytes of a chunk's size with its extensions.
const MAX_SIZE_LINE: usize = 1024;
/// Most bytes of all trailers.
const MAX_TRAILERS: usize = 64 * 1024;
/// More hexadecimal digits than any body that ends before its connection does.
const MAX_DIGITS: usize = 12;

/// This is no chunked body: so many bytes of what was read were of one, the next is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub usize);

/// How far a body has come.
///
/// Each line ends with CR LF, and neither stands alone: what one program takes for the end of a line and another does not
/// is how a request is hidden in a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chunks {
    place: Place,
    /// Of the chunk, or digits of its size so far.
    size: u64,
    /// Bytes of the present line, or of all trailers.
    line: usize,
    /// Whether the last byte of the line was CR.
    returned: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Size,
    /// After the size, before its extensions.
    Padding,
    Extension,
    Data,
    DataEnd,
    /// The flag: whether the present line is empty so far.
    Trailer(bool),
    Ended,
}

impl Chunks {
    /// Takes in what belongs to the body; how many bytes that was. All of them, unless the body ends.
    pub fn feed(&mut self, input: &[u8]) -> Result<usize, Malformed> {
        let mut at = 0;
        while at < input.len() && self.place != Place::Ended {
            if self.place == Place::Data {
                let taken = usize::try_from(self.size).map_or(input.len() - at, |size| size.min(input.len() - at));
                self.size -= taken as u64;
                at += taken;
                if self.size == 0 {
                    self.place = Place::DataEnd;
                }
            } else if self.takes(input[at]) {
                at += 1;
            } else {
                return Err(Malformed(at));
            }
        }
        Ok(at)
    }

    /// Whether it is whole.
    pub fn ended(&self) -> bool {
        self.place == Place::Ended
    }

    /// Takes in a byte that is not data; whether it may stand there.
    fn takes(&mut self, byte: u8) -> bool {
        self.line += 1;
        if std::mem::replace(&mut self.returned, byte == b'\r') != (byte == b'\n') {
            return false;
        }
        match (self.place, byte) {
            (Place::Size, b';') if self.line > 1 => self.place = Place::Extension,
            (Place::Size, b' ' | b'\t' | b'\r') if self.line > 1 => self.place = Place::Padding,
            (Place::Size, _) => match (byte as char).to_digit(16) {
                Some(digit) if self.line <= MAX_DIGITS => self.size = self.size * 16 + u64::from(digit),
                _ => return false,
            },
            (Place::Padding | Place::Extension, b'\n') => {
                self.place = if self.size == 0 { Place::Trailer(true) } else { Place::Data };
                self.line = 0;
            }
            (Place::Padding | Place::Extension, _) if self.line > MAX_SIZE_LINE => return false,
            (Place::Padding, b';') => self.place = Place::Extension,
            (Place::DataEnd, b'\n') => *self = Self::default(),
            (Place::Trailer(_), _) if self.line > MAX_TRAILERS => return false,
            (Place::Trailer(true), b'\n') => self.place = Place::Ended,
            (Place::Trailer(false), b'\n') => self.place = Place::Trailer(true),
            (Place::Padding, b' ' | b'\t' | b'\r')
            | (Place::DataEnd | Place::Trailer(_), b'\r')
            | (Place::Extension | Place::Data | Place::Ended, _) => {}
            (Place::Trailer(_), _) => self.place = Place::Trailer(false),
            (Place::Padding | Place::DataEnd, _) => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(body: &[u8]) -> Result<Option<usize>, Malformed> {
        let mut chunks = Chunks::default();
        let used = chunks.feed(body)?;
        Ok(chunks.ended().then_some(used))
    }

    #[test]
    fn bodies_end_where_they_say() {
        for (body, end) in [
            (&b"0\r\n\r\nNEXT"[..], Some(5)),
            (b"0; ieof\r\n\r\nNEXT", Some(11)),
            (b"3\r\nabc\r\n0\r\n\r\n", Some(13)),
            (b"A;x=y\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n", Some(36)),
            (b"1 \t;x\r\ny\r\n0\r\n\r\n", Some(15)),
            (b"5\r\nabc", None),
            (b"", None),
        ] {
            assert_eq!(taken(body), Ok(end));
            let (mut chunks, mut used) = (Chunks::default(), 0);
            for byte in body {
                used += chunks.feed(std::slice::from_ref(byte)).expect("the same body");
            }
            assert_eq!(chunks.ended().then_some(used), end);
        }
    }

    #[test]
    fn what_is_no_body_is_refused() {
        for (body, good) in [
            (&b"\r\n"[..], 0),
            (b"x", 0),
            (b";", 0),
            (b"-1\r\n", 0),
            (b"3\r\nabcd\r\n", 6),
            (b"3\r\nabc\r\r\n", 7),
            (b"ffffffffffffff\r\n", 12),
            // What ends a line for one and not for another.
            (b"1\nx", 1),
            (b"1;x\ny", 3),
            (b"1\rx", 2),
            (b"1 2\r\n", 2),
            (b"1\r\nx\n", 4),
            (b"0\r\n\n", 3),
            (b"0\r\n\r\r\n", 4),
            (b"0\r\nx: y\n\r\n", 7),
        ] {
            assert_eq!(taken(body), Err(Malformed(good)));
        }
        assert_eq!(taken(&[b"1;", &b"x".repeat(2000)[..]].concat()), Err(Malformed(MAX_SIZE_LINE)));
        assert_eq!(taken(&[b"0\r\n", &b"x: y\r\n".repeat(20_000)[..]].concat()), Err(Malformed(MAX_TRAILERS + 3)));
    }
}
