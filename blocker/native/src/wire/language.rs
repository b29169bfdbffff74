//! Which language somebody reads (RFC 9110, section 12.5.4; matching by the primary subtag, RFC 4647, section 3.4).

/// The number of the best of the languages that are there; 0, the default, where none is asked for.
pub fn best<'a>(accepted: &[u8], there: &(impl Iterator<Item = &'a str> + Clone)) -> usize {
    let (mut found, mut most) = (0, 0);
    for range in accepted.split(|&byte| byte == b',') {
        let mut parts = range.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let tag = parts.next().unwrap_or(b"");
        let primary = tag.split(|&byte| byte == b'-').next().unwrap_or(b"");
        let weight = parts.find_map(|part| part.strip_prefix(b"q=").or_else(|| part.strip_prefix(b"Q=")));
        let weight = weight.map_or(1000, thousandths);
        let at = there.clone().position(|language| language.as_bytes().eq_ignore_ascii_case(primary));
        if let Some(at) = at.filter(|_| weight > most) {
            (found, most) = (at, weight);
        }
    }
    found
}

/// A weight from `0` to `1.000`; what is none counts as 0.
fn thousandths(text: &[u8]) -> u32 {
    let (whole, rest) = match text {
        [whole @ (b'0' | b'1')] => (*whole, &b""[..]),
        [whole @ (b'0' | b'1'), b'.', rest @ ..] if rest.len() <= 3 && rest.iter().all(u8::is_ascii_digit) => {
            (*whole, rest)
        }
        _ => return 0,
    };
    let digit = |at: usize| rest.get(at).map_or(0, |&byte| u32::from(byte - b'0'));
    (u32::from(whole - b'0') * 1000 + digit(0) * 100 + digit(1) * 10 + digit(2)).min(1000)
}

#[cfg(test)]
mod tests {
    use super::best;

    #[test]
    fn the_heaviest_language_that_is_there() {
        let there = ["en", "sv", "de"];
        let chosen = |accepted: &str| there[best(accepted.as_bytes(), &there.into_iter())];
        for (accepted, expected) in [
            ("", "en"),
            ("sv-SE,sv;q=0.9,en;q=0.8", "sv"),
            ("fr, de;q=0.5, en;q=0.4", "de"),
            ("DE", "de"),
            ("en;q=0.1, sv;q=0.2", "sv"),
            ("sv;q=0", "en"),
            ("sv;q=9", "en"),
            ("*", "en"),
            ("de;q=0.999,sv;q=1.000", "sv"),
        ] {
            assert_eq!(chosen(accepted), expected, "{accepted}");
        }
    }
}
