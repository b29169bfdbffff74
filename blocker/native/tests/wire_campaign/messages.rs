//! What peers send: right messages of each protocol, several in a row, and ways to damage them.

use crate::random::Random;

/// One of several.
pub fn pick<'a, T: ?Sized>(random: &mut Random, choice: &[&'a T]) -> &'a T {
    choice[random.below(choice.len())]
}

/// Addresses and pieces of them.
const ADDRESSES: &[&[u8]] = &[
    b"http://listed.example/gallery/1.jpg",
    b"https://a.example:8443/?x=%20y&z",
    b"/gallery/a%2fb",
    b"listed.example:443",
    b"[2001:db8::1]:443",
    b"192.0.2.1",
    b"http://\xc3\xbc.example/\xff",
    b"-",
    b"*",
    b"/",
    b"",
];

/// What damage puts in: what ends lines, heads, frames and numbers, and numbers that are too large.
const TOKENS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"\n\n",
    b" ",
    b"\t",
    b":",
    b"\0",
    b"0\r\n\r\n",
    b"0; ieof\r\n\r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Host: other.example\r\n",
    b"Encapsulated: req-hdr=0, null-body=0\r\n",
    b"Connection: close\r\n",
    b"HTTP/1.1",
    b"ICAP/1.0",
    b"://",
    b"%",
    b"\xff\xff\xff\xff",
    b"\xf0\x80\x80\x80\x80\x80\x80\x80\x80\x80",
    b"\0\0\0\0",
    b"-1",
    b"18446744073709551616",
    b"4294967295",
    b"999999999",
    b"ffffffffffffffff",
    b"000000000000000000",
];

/// Damages what was right, mostly; leaves a part of all inputs whole.
pub fn damage(random: &mut Random, data: &mut Vec<u8>) {
    for _ in 0..random.below(4) {
        if data.is_empty() {
            return;
        }
        let at = random.below(data.len());
        let end = at + random.below((data.len() - at).min(40) + 1);
        match random.below(9) {
            0 => data[at] ^= 1 << random.below(8),
            1 => data[at] = random.next() as u8,
            2 => data.truncate(at),
            3 => drop(data.drain(at..end)),
            4 => drop(data.splice(at..at, data[at..end].to_vec())),
            5 => drop(data.splice(at..at, pick(random, TOKENS).iter().copied())),
            6 => drop(data.splice(at..end, pick(random, TOKENS).iter().copied())),
            7 => {
                // A piece goes elsewhere.
                let piece: Vec<u8> = data.drain(at..end).collect();
                let to = random.below(data.len() + 1);
                data.splice(to..to, piece);
            }
            _ => lie(random, data, at),
        }
    }
}

/// Makes another number of the first one after a place.
fn lie(random: &mut Random, data: &mut Vec<u8>, at: usize) {
    let Some(first) = data[at..].iter().position(u8::is_ascii_digit).map(|found| at + found) else { return };
    let length = data[first..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = match random.below(3) {
        0 => random.below(300).to_string().into_bytes(),
        1 => (random.next() >> random.below(64)).to_string().into_bytes(),
        _ => pick(random, &TOKENS[TOKENS.len() - 6..]).to_vec(),
    };
    data.splice(first..first + length, number);
}

/// Several messages of one protocol, perhaps damaged.
pub fn stream(random: &mut Random, first: &[u8], one: impl Fn(&mut Random, &mut Vec<u8>)) -> Vec<u8> {
    let mut data = if random.below(16) == 0 { Vec::new() } else { first.to_vec() };
    for _ in 0..=random.below(5) {
        one(random, &mut data);
    }
    damage(random, &mut data);
    data
}

fn lines(random: &mut Random, data: &mut Vec<u8>, choice: &[&str], most: usize) {
    for _ in 0..random.below(most) {
        data.extend_from_slice(pick(random, choice).as_bytes());
        data.extend_from_slice(b"\r\n");
    }
}

/// A request to the check gateway.
pub fn http(random: &mut Random, data: &mut Vec<u8>) {
    let address = pick(random, ADDRESSES);
    let method = pick(random, &["GET", "GET", "HEAD", "POST", "CONNECT"]);
    let choice = [
        "/nginx",
        "/forward",
        "/envoy/x?y",
        "/check?url=http%3A%2F%2Fa.example",
        "/check?host=a",
        "http://a.example/envoy/x",
        "HTTPS://b/check?host=a",
    ];
    let target = pick(random, &choice);
    for part in [method.as_bytes(), b" ", if method == "CONNECT" { address } else { target.as_bytes() }, b" "] {
        data.extend_from_slice(part);
    }
    data.extend_from_slice(pick(random, &["HTTP/1.1\r\n", "HTTP/1.1\r\n", "HTTP/1.1\r\n", "HTTP/1.0\r\n"]).as_bytes());
    if random.below(4) > 0 {
        for part in [b"Host: a.example\r\nX-Original-URL: ", address, b"\r\nX-Forwarded-Uri: /a\r\n"] {
            data.extend_from_slice(part);
        }
    }
    let choice = [
        "X-Forwarded-Host: listed.example",
        "X-Forwarded-Proto: https",
        "Accept-Language: sv, de;q=0.5",
        "Connection: keep-alive",
        "Connection: x, close",
        "Expect: 100-continue",
        "X-Client-IP: 192.0.2.9",
    ];
    lines(random, data, &choice, 4);
    let body = random.below(2) * random.below(40);
    if body > 0 {
        data.extend_from_slice(format!("Content-Length: {body}\r\n").as_bytes());
    }
    data.extend_from_slice(if random.below(8) == 0 { b"\n" } else { b"\r\n" });
    data.extend(std::iter::repeat_n(b'\n', body));
}

/// A request to the ICAP gateway.
pub fn icap(random: &mut Random, data: &mut Vec<u8>) {
    let method = pick(random, &["REQMOD", "REQMOD", "REQMOD", "REQMOD", "OPTIONS", "RESPMOD"]);
    data.extend_from_slice(format!("{method} icap://blocker/reqmod ICAP/1.0\r\nHost: blocker\r\n").as_bytes());
    let choice =
        ["Allow: 204", "Allow: 204", "Preview: 0", "Connection: close", "X-Client-IP: 192.0.2.9", "Allow: 206, 204"];
    lines(random, data, &choice, 3);
    if method == "OPTIONS" {
        data.extend_from_slice(pick(random, &["\r\n", "Encapsulated: null-body=0\r\n\r\n"]).as_bytes());
        return;
    }
    let verb = pick(random, &["GET", "GET", "HEAD", "POST", "CONNECT"]);
    let mut head = [verb.as_bytes(), b" ", pick(random, ADDRESSES), b" HTTP/1.1\r\n"].concat();
    lines(
        random,
        &mut head,
        &["Host: listed.example", "Host: b.example", "Accept-Language: de, sv;q=0.7", "Cookie: a=b:c"],
        4,
    );
    head.extend_from_slice(b"\r\n");
    let (kind, has_body) = if random.below(2) == 0 { ("req-body", true) } else { ("null-body", false) };
    data.extend_from_slice(format!("Encapsulated: req-hdr=0, {kind}={}\r\n\r\n", head.len()).as_bytes());
    data.extend_from_slice(&head);
    if has_body {
        chunked(random, data);
    }
}

/// A chunked body.
pub fn chunked(random: &mut Random, data: &mut Vec<u8>) {
    for _ in 0..random.below(4) {
        let size = 1 + random.below(40);
        let extension = pick(random, &["", "", ";a=b", " ; x", "\t"]);
        data.extend_from_slice(format!("{size:x}{extension}\r\n").as_bytes());
        data.extend((0..size).map(|_| random.next() as u8));
        data.extend_from_slice(b"\r\n");
    }
    data.extend_from_slice(pick(random, &["0\r\n", "0; ieof\r\n", "000\r\n"]).as_bytes());
    lines(random, data, &["Trailer: x", "a:", ":"], 3);
    data.extend_from_slice(b"\r\n");
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
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

fn text(text: &[u8], out: &mut Vec<u8>) {
    varint(text.len() as u64, out);
    out.extend_from_slice(text);
}

fn frame(kind: u8, flags: u8, stream: u64, number: u64, payload: &[u8], out: &mut Vec<u8>) {
    let mut body = vec![kind, 0, 0, 0, flags];
    varint(stream, &mut body);
    varint(number, &mut body);
    body.extend_from_slice(payload);
    out.extend_from_slice(&(body.len() as u32).to_be_bytes());
    out.extend_from_slice(&body);
}

/// HAProxy's first frame.
pub fn hello() -> Vec<u8> {
    let (mut payload, mut out) = (Vec::new(), Vec::new());
    for (name, value) in [("supported-versions", "2.0"), ("capabilities", "pipelining,async"), ("engine-id", "e")] {
        text(name.as_bytes(), &mut payload);
        payload.push(8);
        text(value.as_bytes(), &mut payload);
    }
    text(b"max-frame-size", &mut payload);
    payload.push(3);
    varint(16_380, &mut payload);
    frame(1, 1, 0, 0, &payload, &mut out);
    out
}

/// A frame to the spoe gateway.
pub fn spop(random: &mut Random, data: &mut Vec<u8>) {
    let kind = [3, 3, 3, 3, 3, 3, 2, 1, 0, 99][random.below(10)];
    let flags = [1, 1, 1, 1, 1, 1, 1, 1, 0, 3][random.below(10)];
    let (stream, number) = (random.next() >> random.below(64), random.below(300) as u64);
    let mut payload = Vec::new();
    for _ in 0..random.below(3) {
        text(b"check", &mut payload);
        let count = random.below(4);
        payload.push(count as u8);
        for _ in 0..count {
            text(pick(random, &["url", "host", "path", "src", "x"]).as_bytes(), &mut payload);
            match random.below(8) {
                0 => payload.push(0),
                1 => payload.push(0x11),
                2 => payload.extend_from_slice(&[6, 192, 0, 2, 1]),
                3 => payload.extend_from_slice(&[3, 0xff, 0x7f]),
                choice => {
                    payload.push(if choice == 4 { 9 } else { 8 });
                    text(pick(random, ADDRESSES), &mut payload);
                }
            }
        }
    }
    frame(kind, flags, stream, number, &payload, data);
}

/// A line to a helper of Squid.
pub fn squid(random: &mut Random, data: &mut Vec<u8>) {
    if random.below(2) == 0 {
        data.extend_from_slice(format!("{} ", random.next() >> random.below(64)).as_bytes());
    }
    data.extend_from_slice(pick(random, ADDRESSES));
    data.extend_from_slice(pick(random, &["", " -", " 192.0.2.9/- user GET", " a b  c"]).as_bytes());
    data.extend_from_slice(pick(random, &["\n", "\n", "\r\n"]).as_bytes());
}
