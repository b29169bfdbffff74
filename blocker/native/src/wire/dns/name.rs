//! Names between the wire, where a label holds any byte, and text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::message::MAX_NAME_BYTES;

/// The labels of a name on the wire, the root's empty one left out.
pub struct Labels<'a>(pub &'a [u8]);

impl<'a> Iterator for Labels<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (&length, rest) = self.0.split_first()?;
        let (label, rest) = rest.split_at_checked(usize::from(length)).filter(|_| length > 0)?;
        self.0 = rest;
        Some(label)
    }
}

/// A name without the labels before it that name a service and its port (RFC 9460, section 2.3).
pub fn without_service(name: &[u8]) -> &[u8] {
    let mut labels = Labels(name);
    while labels.0.get(1) == Some(&b'_') && labels.next().is_some() {}
    labels.0
}

/// A name of letters, digits, hyphens and underscores as it goes over the wire, in lower case; None: it is none.
pub fn to_wire(text: &str) -> Option<Vec<u8>> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let mut wire = Vec::with_capacity(text.len() + 2);
    for label in text.split('.').filter(|_| !text.is_empty()) {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if label.is_empty() || label.len() > 63 || !label.bytes().all(known) {
            return None;
        }
        wire.push(label.len() as u8);
        wire.extend(label.bytes().map(|byte| byte.to_ascii_lowercase()));
    }
    wire.push(0);
    (wire.len() <= MAX_NAME_BYTES).then_some(wire)
}

/// Whether a name on the wire is another one or below it, whatever the letters' case.
pub fn is_within(name: &[u8], other: &[u8]) -> bool {
    let mut labels = Labels(name);
    while labels.0.len() > other.len() && labels.next().is_some() {}
    labels.0.eq_ignore_ascii_case(other)
}

/// Writes a name as a host to be decided.
///
/// What no host has, such as a dot inside a label, becomes something that no rule has either, so that such a name is still
/// found to be below a listed domain and is never taken for a name that it is not.
pub fn to_host(name: &[u8], host: &mut Vec<u8>) {
    host.clear();
    for label in Labels(name) {
        if !host.is_empty() {
            host.push(b'.');
        }
        for &byte in label {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
                host.push(byte);
            } else {
                host.extend_from_slice(b"%2F");
            }
        }
    }
}

/// Writes an address as a host to be decided.
pub fn address_to_host(address: IpAddr, host: &mut Vec<u8>) {
    use std::io::Write as _;

    host.clear();
    match address {
        IpAddr::V4(address) => write!(host, "{address}"),
        IpAddr::V6(address) => write!(host, "[{address}]"),
    }
    .expect("writing to memory does not fail");
}

/// The address that a name stands for in reverse: four decimal labels, or 32 of a hexadecimal digit (RFC 5782, section 2).
pub fn reversed_address(name: &[u8]) -> Option<IpAddr> {
    let count = Labels(name).count();
    if count == 4 {
        let mut octets = [0; 4];
        for (label, octet) in Labels(name).zip(octets.iter_mut().rev()) {
            *octet = decimal(label)?;
        }
        return Some(IpAddr::V4(Ipv4Addr::from(octets)));
    }
    if count != 32 {
        return None;
    }
    let mut address = 0_u128;
    for (at, label) in Labels(name).enumerate() {
        let [digit] = label else { return None };
        address |= u128::from(char::from(*digit).to_digit(16)?) << (4 * at);
    }
    Some(IpAddr::V6(Ipv6Addr::from(address)))
}

fn decimal(label: &[u8]) -> Option<u8> {
    let written = label.len() == 1 || label.first() != Some(&b'0');
    let text =
        std::str::from_utf8(label).ok().filter(|text| written && text.bytes().all(|byte| byte.is_ascii_digit()))?;
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_hosts_that_they_are() {
        let host = |wire: &[u8]| {
            let mut host = Vec::new();
            to_host(wire, &mut host);
            String::from_utf8(host).unwrap()
        };
        assert_eq!(host(b"\x03wWw\x07example\x00"), "wWw.example");
        assert_eq!(host(b"\x0ba.b@c:80/d?\x07example\x00"), "a%2Fb%2Fc%2F80%2Fd%2F.example");
        assert_eq!(host(b"\x03\x00\xff[\x01x\x00"), "%2F%2F%2F.x");
        assert_eq!(host(b"\x00"), "");
    }

    #[test]
    fn a_service_is_of_its_host() {
        for (name, host) in [
            (&b"\x05_8443\x06_https\x04host\x04test\0"[..], &b"\x04host\x04test\0"[..]),
            (b"\x04host\x01_\0", b"\x04host\x01_\0"),
            (b"\x02_a\0", b"\0"),
            (b"\0", b"\0"),
        ] {
            assert_eq!(without_service(name), host);
        }
    }

    #[test]
    fn a_name_is_within_those_that_end_it_at_a_label() {
        let within = |name: &[u8]| is_within(name, b"\x03rpz\x04test\0");
        assert!(within(b"\x03rpz\x04test\0"));
        assert!(within(b"\x01a\x03RpZ\x04tEst\0"));
        for other in
            [b"\0".as_slice(), b"\x04test\0", b"\x04arpz\x04test\0", b"\x05a\x03rpz\x04test\0", b"", b"\x3frpz"]
        {
            assert!(!within(other));
        }
    }

    #[test]
    fn reversed_names_are_addresses() {
        let address = |text: &str| reversed_address(&to_wire(text).unwrap()).map(|found| found.to_string());
        assert_eq!(address("7.2.0.192").as_deref(), Some("192.0.2.7"));
        for none in ["07.2.0.192", "256.2.0.192", "2.0.192", "1.7.2.0.192", "a.2.0.192", ""] {
            assert_eq!(address(none), None, "{none}");
        }
        let nibbles = format!("1.0.0.0.{}8.b.d.0.1.0.0.2", "0.".repeat(20));
        assert_eq!(address(&nibbles).as_deref(), Some("2001:db8::1"));
        assert_eq!(address(&nibbles.replace("b.d", "g.d")), None);
        assert_eq!(to_wire("a..b"), None);
        assert_eq!(to_wire(&"a.".repeat(128)), None);
    }
}
