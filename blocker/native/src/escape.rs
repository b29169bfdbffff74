//! Percent-decoding to the fixed point, and escaping of what a canonical URL may not hold raw.

/// Appends `input`, percent-decoded until nothing changes, to `out`.
///
/// One pass decodes all nesting: `%HH` patterns cannot overlap (no `%` is a hex digit), so the rewriting is confluent
/// and collapsing each pattern as soon as its last byte arrives ends at the same text as repeated whole passes would.
/// Each collapse shortens `out` by two bytes: the time is linear in `input`, whatever the nesting.
pub fn decode(input: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    let Some(first) = memchr::memchr(b'%', input) else {
        out.extend_from_slice(input);
        return;
    };
    out.extend_from_slice(&input[..first]);
    for &byte in &input[first..] {
        out.push(byte);
        while let [.., b'%', high, low] = out[start..] {
            let (Some(high), Some(low)) = (hex(high), hex(low)) else {
                break;
            };
            out.truncate(out.len() - 3);
            out.push(high << 4 | low);
        }
    }
}

/// Appends `%HH`, upper-case.
pub fn escape(byte: u8, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.extend_from_slice(&[b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
}

/// Appends `input` with every byte that no canonical path holds raw escaped.
///
/// Safe Browsing's set (up to 0x20, from 0x7f on, `#`, `%`) and the question mark: one that was decoded from `%3F` is part
/// of the path, and left raw it would start a query when the canonical URL is read again.
pub fn escape_path(input: &[u8], out: &mut Vec<u8>) {
    escape_where(input, out, |byte| is_escaped(byte) || byte == b'?');
}

/// Appends `input` with every byte that no canonical query holds raw escaped: Safe Browsing's set.
pub fn escape_query(input: &[u8], out: &mut Vec<u8>) {
    escape_where(input, out, is_escaped);
}

fn escape_where(input: &[u8], out: &mut Vec<u8>, escaped: impl Fn(u8) -> bool) {
    for &byte in input {
        if escaped(byte) {
            escape(byte, out);
        } else {
            out.push(byte);
        }
    }
}

const fn is_escaped(byte: u8) -> bool {
    byte <= 0x20 || byte >= 0x7f || byte == b'#' || byte == b'%'
}

const fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(input: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        decode(input, &mut out);
        out
    }

    #[test]
    fn nesting_collapses_in_one_pass() {
        assert_eq!(decoded(b"%25%32%35"), b"%");
        assert_eq!(decoded(b"%2525252525252525"), b"%");
        assert_eq!(decoded(b"%%%25%32%35asd%%"), b"%%%asd%%");
        assert_eq!(decoded(b"%%34%31"), b"A");
        assert_eq!(decoded(b"%zz%4"), b"%zz%4");
    }

    #[test]
    fn decoding_stops_at_what_was_there_before() {
        let mut out = b"%4".to_vec();
        decode(b"1", &mut out);
        assert_eq!(out, b"%41");
        decode(b"%31", &mut out);
        assert_eq!(out, b"%411");
    }
}
