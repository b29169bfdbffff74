//! A batch of URLs as JSON: `{"urls": [text, ...], "policy": name}` read, decisions written (RFC 8259).
//!
//! Reading is strict: what is not exactly this is refused without a reason, and the caller asks somebody slower for one.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::decide::{self, Outcome, Verdict};
use crate::policy::Policy;
use crate::table::Table;

/// URLs to decide, one after the other in one piece of memory, and the policy to decide them by.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Batch {
    text: Vec<u8>,
    ends: Vec<usize>,
    /// The policy's name, if one is given.
    pub policy: Option<String>,
}

impl Batch {
    /// Reads a document; None if it is anything but an object with an array of strings and, at most, a policy's name.
    /// Cost: about 50 ns a URL; no more memory than the document has.
    pub fn read(document: &[u8]) -> Option<Self> {
        let mut batch = Self { text: Vec::with_capacity(document.len()), ..Self::default() };
        let mut reader = serde_json::Deserializer::from_slice(document);
        reader.deserialize_map(Members(&mut batch)).ok()?;
        reader.end().ok()?;
        Some(batch)
    }

    /// Appends a URL, any bytes.
    pub fn push(&mut self, url: &[u8]) {
        self.text.extend_from_slice(url);
        self.ends.push(self.text.len());
    }

    /// How many URLs it has.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// One of them, if there are so many.
    pub fn url(&self, at: usize) -> Option<&[u8]> {
        let start = if at == 0 { 0 } else { *self.ends.get(at - 1)? };
        Some(&self.text[start..*self.ends.get(at)?])
    }
}

/// The members of the document.
struct Members<'a>(&'a mut Batch);

impl<'de> Visitor<'de> for Members<'_> {
    type Value = ();

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("an object with urls")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (mut urls, mut policy) = (false, false);
        while let Some(name) = map.next_key_seed(Text)? {
            match name.as_str() {
                "urls" if !urls => {
                    map.next_value_seed(Urls(self.0))?;
                    urls = true;
                }
                "policy" if !policy => {
                    self.0.policy = Some(map.next_value_seed(Text)?);
                    policy = true;
                }
                _ => return Err(de::Error::custom("another member")),
            }
        }
        if urls { Ok(()) } else { Err(de::Error::custom("no urls")) }
    }
}

/// A string, which is kept.
struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Text {
    type Value = String;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("a string")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }
}

/// The array of URLs.
struct Urls<'a>(&'a mut Batch);

impl<'de> DeserializeSeed<'de> for Urls<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Urls<'_> {
    type Value = ();

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("an array of strings")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut urls: A) -> Result<(), A::Error> {
        while urls.next_element_seed(OneUrl(self.0))?.is_some() {}
        Ok(())
    }
}

/// One URL, which is appended.
struct OneUrl<'a>(&'a mut Batch);

impl<'de> DeserializeSeed<'de> for OneUrl<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for OneUrl<'_> {
    type Value = ();

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("a string")
    }

    fn visit_str<E: de::Error>(self, url: &str) -> Result<(), E> {
        self.0.push(url.as_bytes());
        Ok(())
    }
}

/// What was decided about one URL or host, and all that is told about it.
pub struct Decided<'a> {
    /// The verdict.
    pub verdict: Verdict,
    /// Where it comes from; None where nothing is listed.
    pub outcome: Option<(&'a Table, &'a Policy, &'a Outcome)>,
    /// The canonical form; None if there is none.
    pub canonical: Option<&'a str>,
    /// Whether the text is no URL.
    pub invalid: bool,
}

impl Decided<'_> {
    /// Appends it as a JSON object. Cost: about 20 ns where nothing is listed.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"verdict\":\"");
        out.extend_from_slice(self.verdict.name().as_bytes());
        let winner = self.outcome.and_then(|(table, policy, outcome)| {
            let winner = outcome.winner?;
            Some((table, winner, policy.first(winner.lists)?))
        });
        if let Some((table, winner, list)) = winner {
            let info = &table.lists()[list];
            out.extend_from_slice(b"\",\"list\":");
            push_text(&info.name, out);
            out.extend_from_slice(b",\"kind\":\"");
            out.extend_from_slice(winner.kind().name().as_bytes());
            out.extend_from_slice(b"\",\"serial\":");
            out.extend_from_slice(info.serial.to_string().as_bytes());
            out.extend_from_slice(b",\"canonical\":");
        } else {
            out.extend_from_slice(b"\",\"list\":null,\"kind\":null,\"serial\":null,\"canonical\":");
        }
        match self.canonical {
            Some(canonical) => push_canonical(canonical, out),
            None => out.extend_from_slice(b"null"),
        }
        match winner.and_then(|(table, winner, list)| decide::reference(table, &winner, list)) {
            Some(reference) => {
                out.extend_from_slice(b",\"reference\":");
                push_text(reference, out);
                out.extend_from_slice(b",\"shadow\":[");
            }
            None => out.extend_from_slice(b",\"reference\":null,\"shadow\":["),
        }
        if let Some((table, policy, outcome)) = self.outcome {
            let mut between: &[u8] = b"";
            for &list in policy.order.iter().filter(|&&list| outcome.shadow >> list & 1 == 1) {
                out.extend_from_slice(between);
                push_text(&table.lists()[usize::from(list)].name, out);
                between = b",";
            }
        }
        out.extend_from_slice(if self.invalid { b"],\"invalid\":true}" } else { b"],\"invalid\":false}" });
    }
}

/// A canonical URL or a canonical host, which is printable ASCII: only two of its characters need an escape.
fn push_canonical(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = memchr::memchr2(b'"', b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(&[b'\\', rest[at]]);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// Any text.
fn push_text(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("a string, and memory to write to");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(document: &str) -> Option<(Vec<String>, Option<String>)> {
        let batch = Batch::read(document.as_bytes())?;
        assert_eq!(batch.is_empty(), batch.url(0).is_none());
        assert_eq!(batch.url(batch.len()), None);
        let urls = (0..batch.len()).map(|at| String::from_utf8(batch.url(at).unwrap().to_vec()).unwrap());
        Some((urls.collect(), batch.policy))
    }

    #[test]
    fn documents() {
        assert_eq!(read("{\"urls\":[]}"), Some((vec![], None)));
        let both = " {\n\"policy\" : \"strict\", \"\\u0075rls\": [\"a\", \"\", \"\\u00e4\\ud83d\\ude00\\n\\/\"] }\r\n";
        let urls = ["a", "", "\u{e4}\u{1f600}\n/"].map(str::to_owned).to_vec();
        assert_eq!(read(both), Some((urls, Some("strict".to_owned()))));
        for refused in [
            "",
            "{",
            "{}",
            "[]",
            "[[\"a\"],\"default\"]",
            "null",
            "{\"urls\":null}",
            "{\"urls\":\"a\"}",
            "{\"urls\":{\"0\":\"a\"}}",
            "{\"urls\":[\"a\",1]}",
            "{\"urls\":[null]}",
            "{\"urls\":[\"a\",]}",
            "{\"urls\":[\"a\"],}",
            "{\"urls\":[[\"a\"]]}",
            "{\"urls\":[\"\\ud800\"]}",
            "{\"urls\":[\"\n\"]}",
            "{\"urls\":[],\"policy\":null}",
            "{\"urls\":[],\"policy\":1}",
            "{\"urls\":[],\"urls\":[]}",
            "{\"urls\":[],\"policy\":\"a\",\"policy\":\"b\"}",
            "{\"urls\":[],\"x\":1}",
            "{\"urls\":[]} {}",
            "{\"urls\":[]}\0",
            "\u{feff}{\"urls\":[]}",
        ] {
            assert_eq!(read(refused), None, "{refused}");
        }
        assert_eq!(Batch::read(b"{\"urls\":[\"\xff\"]}"), None);
    }

    #[test]
    fn what_is_told_of_a_text_that_is_no_url() {
        let mut out = Vec::new();
        Decided { verdict: Verdict::Block, outcome: None, canonical: None, invalid: true }.write(&mut out);
        let expected = "{\"verdict\":\"block\",\"list\":null,\"kind\":null,\"serial\":null,\"canonical\":null,\
                        \"reference\":null,\"shadow\":[],\"invalid\":true}";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
