//! Where a chunked body ends (RFC 9112, section 7.1), without keeping any of it.

/// Most bytes of a chunk's size with its extensions.
const MAX_SIZE_LINE: usize = 1024;
/// Most bytes of all trailers.
const MAX_TRAILERS: usize = 64 * 1024;
/// More hexadecimal digits than any body that ends before its connection does.
const MAX_DIGITS: usize = 12;

/// This is no chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// How far a body has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chunks {
    place: Place,
    /// Of the chunk, or digits of its size so far.
    size: u64,
    /// Bytes of the present line, or of all trailers.
    line: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Size,
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
            } else {
                self.byte(input[at])?;
                at += 1;
            }
        }
        Ok(at)
    }

    /// Whether it is whole.
    pub fn ended(&self) -> bool {
        self.place == Place::Ended
    }

    fn byte(&mut self, byte: u8) -> Result<(), Malformed> {
        self.line += 1;
        match self.place {
            Place::Size => match (byte as char).to_digit(16) {
                Some(digit) if self.line <= MAX_DIGITS => self.size = self.size * 16 + u64::from(digit),
                None if self.line > 1 && matches!(byte, b';' | b' ' | b'\t' | b'\r') => self.place = Place::Extension,
                None if self.line > 1 && byte == b'\n' => self.sized(),
                _ => return Err(Malformed),
            },
            Place::Extension if byte == b'\n' => self.sized(),
            Place::Extension if self.line > MAX_SIZE_LINE => return Err(Malformed),
            Place::DataEnd => match byte {
                b'\r' if self.line == 1 => {}
                b'\n' => *self = Self::default(),
                _ => return Err(Malformed),
            },
            Place::Trailer(_) if self.line > MAX_TRAILERS => return Err(Malformed),
            Place::Trailer(empty) => match byte {
                b'\n' if empty => self.place = Place::Ended,
                b'\n' => self.place = Place::Trailer(true),
                b'\r' => {}
                _ => self.place = Place::Trailer(false),
            },
            Place::Extension | Place::Data | Place::Ended => {}
        }
        Ok(())
    }

    fn sized(&mut self) {
        self.place = if self.size == 0 { Place::Trailer(true) } else { Place::Data };
        self.line = 0;
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
            (b"1\nx\n0\n\n", Some(7)),
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
        for body in [&b"\r\n"[..], b"x", b";", b"-1\r\n", b"3\r\nabcd\r\n", b"3\r\nabc\r\r\n", b"ffffffffffffff\r\n"] {
            assert_eq!(taken(body), Err(Malformed));
        }
        assert_eq!(taken(&[b"1;", &b"x".repeat(2000)[..]].concat()), Err(Malformed));
        assert_eq!(taken(&[b"0\r\n", &b"x: y\r\n".repeat(20_000)[..]].concat()), Err(Malformed));
    }
}
