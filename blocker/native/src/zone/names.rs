//! What rules say of names: collected, put in order, decided from the top down.

use super::{Effect, LeftOut, Source, Zone};
use crate::hashed;
use crate::host::is_address;
use crate::rule::Kind;
use crate::run;

const MAX_LABEL: usize = 63;
/// Bytes of a `*` label on the wire.
pub const STAR: usize = 2;
/// Top labels of triggers that are not names (draft-vixie-dnsop-dns-rpz section 4).
const TRIGGERS: [&[u8]; 4] = [b"rpz-ip", b"rpz-client-ip", b"rpz-nsip", b"rpz-nsdname"];

/// Bits of what lists say at a name.
mod says {
    pub const DOMAIN: [u8; 2] = [1, 2];
    pub const HOST: [u8; 2] = [4, 8];
    pub const PATH: [u8; 2] = [16, 32];
    pub const WIDE_PATH: [u8; 2] = [64, 128];
}
const BLOCK: usize = 0;
const ALLOW: usize = 1;

/// What lists say at each name, before it is decided.
pub struct Facts {
    /// Bytes that are left for a name on the wire.
    room: usize,
    keys: Vec<u8>,
    found: Vec<(u32, u8, u8)>,
    left_out: LeftOut,
}

impl Facts {
    pub fn new(room: usize) -> Self {
        Self { room, keys: Vec::new(), found: Vec::new(), left_out: LeftOut::default() }
    }

    pub fn read(&mut self, source: &Source<'_>) {
        let mut name = Vec::new();
        for entry in source.rules.iter() {
            let host = entry.rule.host;
            if is_address(host) {
                self.left_out.addresses += 1;
            } else if hashed::is_reserved(host) {
                self.left_out.digests += 1;
            } else if source.www_alias {
                for on in run::aliases(&entry.rule, true) {
                    name.clear();
                    name.extend_from_slice(if on.host.www { b"www." } else { b"" });
                    name.extend_from_slice(on.host.name);
                    self.add(&name, on.rule.kind, on.rule.subdomains, source.allow);
                }
            } else {
                self.add(host, entry.rule.kind, entry.rule.subdomains, source.allow);
            }
        }
    }

    fn add(&mut self, host: &[u8], kind: Kind, subdomains: bool, allow: bool) {
        let wide = kind == Kind::Domain || subdomains;
        if !fits(host, wide, self.room) || !is_plain(host) {
            self.left_out.names += 1;
            return;
        }
        let bit = match (kind, subdomains) {
            (Kind::Domain, _) => says::DOMAIN,
            (Kind::Host, _) => says::HOST,
            (Kind::Prefix | Kind::Exact, false) => says::PATH,
            (Kind::Prefix | Kind::Exact, true) => says::WIDE_PATH,
        }[usize::from(allow)];
        let start = u32::try_from(self.keys.len()).expect("a zone has less than 4 GiB of names");
        for label in host.rsplit(|&byte| byte == b'.') {
            self.keys.extend_from_slice(label);
            self.keys.push(0);
        }
        self.keys.pop();
        self.found.push((start, host.len() as u8, bit));
    }

    fn key(keys: &[u8], fact: (u32, u8, u8)) -> &[u8] {
        let start = fact.0 as usize;
        &keys[start..start + usize::from(fact.1)]
    }

    /// Puts the names in order, each once.
    pub fn sort(&mut self) {
        let keys = &self.keys;
        self.found.sort_unstable_by(|&a, &b| Self::key(keys, a).cmp(Self::key(keys, b)));
        self.found.dedup_by(|later, kept| {
            let same = Self::key(keys, *later) == Self::key(keys, *kept);
            if same {
                kept.2 |= later.2;
            }
            same
        });
    }

    pub fn decide(self, wanted: Effect) -> Zone {
        let mut nodes: Vec<Node> = Vec::with_capacity(self.found.len());
        let mut path: Vec<usize> = Vec::new();
        for &fact in &self.found {
            let key = Self::key(&self.keys, fact);
            while path.last().is_some_and(|&at| !is_below(key, Self::key(&self.keys, self.found[at]))) {
                path.pop();
            }
            let above = path.last().map_or(Above::default(), |&at| nodes[at].above);
            nodes.push(Node::decide(fact.2, path.last().copied(), above, wanted));
            path.push(nodes.len() - 1);
        }
        // A name that says nothing else than what holds there anyhow is needed only for those below it.
        for at in (0..nodes.len()).rev() {
            if nodes[at].needed
                && let Some(parent) = nodes[at].parent
            {
                nodes[parent].needed = true;
            }
        }
        let mut zone = Zone { left_out: self.left_out, ..Zone::default() };
        let mut last: &[u8] = b"";
        for (&fact, node) in self.found.iter().zip(&nodes).filter(|(_, node)| node.needed) {
            let key = Self::key(&self.keys, fact);
            if node.inherited != Effect::None {
                let parent = node.parent.map_or(0, |at| usize::from(self.found[at].1));
                // The names between it and its parent exist in DNS too, and hide the wildcard above them.
                for end in memchr::memchr_iter(0, key).filter(|&end| end > parent) {
                    if !is_below(last, &key[..end]) {
                        zone.push(&key[..end], node.inherited, node.inherited);
                    }
                }
            }
            // A host that leaves no room for a wildcard leaves none for any other label below it.
            let below = if fits(key, true, self.room) { node.above.below } else { Effect::None };
            zone.push(key, node.own, below);
            last = key;
        }
        zone
    }
}

/// What a name passes on to those below it.
#[derive(Clone, Copy, Default)]
struct Above {
    /// The domain rules so far: `BLOCK`, `ALLOW`.
    domain: Option<usize>,
    /// Bits of path rules that hold on subdomains.
    wide: u8,
    /// What holds for every name below.
    below: Effect,
    /// Whether a wildcard is there.
    covered: bool,
}

/// A name that is decided.
struct Node {
    parent: Option<usize>,
    own: Effect,
    inherited: Effect,
    above: Above,
    needed: bool,
}

impl Node {
    fn decide(said: u8, parent: Option<usize>, above: Above, wanted: Effect) -> Self {
        let rule = |bits: [u8; 2], otherwise| {
            if said & bits[ALLOW] != 0 {
                Some(ALLOW)
            } else if said & bits[BLOCK] != 0 {
                Some(BLOCK)
            } else {
                otherwise
            }
        };
        let domain = rule(says::DOMAIN, above.domain);
        let wide = above.wide | said & (says::WIDE_PATH[BLOCK] | says::WIDE_PATH[ALLOW]);
        let own = verdict(rule(says::HOST, domain), wide | said & (says::PATH[BLOCK] | says::PATH[ALLOW]));
        let effect = |verdict| said_as(verdict, wanted, above.covered);
        let (own, below) = (effect(own), effect(verdict(domain, wide)));
        let inherited = above.below;
        let covered = above.covered || below != Effect::None;
        let needed = own != inherited || below != inherited;
        Self { parent, own, inherited, above: Above { domain, wide, below, covered }, needed }
    }
}

/// As [`crate::decide::Walker::decide_host`]: blocked whole, to be inspected, or neither.
fn verdict(rule: Option<usize>, paths: u8) -> Effect {
    let excepted = paths & (says::PATH[ALLOW] | says::WIDE_PATH[ALLOW]) != 0;
    if rule == Some(BLOCK) && !excepted {
        Effect::Block
    } else if paths != 0 {
        Effect::Inspect
    } else {
        Effect::Pass
    }
}

/// How a zone says a verdict: outside its wildcards what it is about alone; under them everything, an inspect zone also
/// what is blocked, since resolvers ask no second zone there.
fn said_as(verdict: Effect, wanted: Effect, covered: bool) -> Effect {
    match (covered, verdict) {
        (_, verdict) if verdict == wanted => verdict,
        (true, Effect::Block) => Effect::Block,
        (true, _) => Effect::Pass,
        (false, _) => Effect::None,
    }
}

/// Whether a name is another one or below it.
fn is_below(key: &[u8], above: &[u8]) -> bool {
    key.strip_prefix(above).is_some_and(|rest| rest.first().is_none_or(|&byte| byte == 0))
}

/// Whether a name, or the wildcard below it, is short enough: on the wire each label has a length before it.
fn fits(name: &[u8], wildcard: bool, room: usize) -> bool {
    name.len() + 1 + if wildcard { STAR } else { 0 } <= room
}

/// Whether a resolver takes a name as it is written here.
fn is_plain(host: &[u8]) -> bool {
    let label = |label: &[u8]| {
        let letter = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
        !label.is_empty() && label.len() <= MAX_LABEL && label.iter().all(letter)
    };
    host.split(|&byte| byte == b'.').all(label)
        && !TRIGGERS.contains(&host.rsplit(|&byte| byte == b'.').next().unwrap_or(b""))
}
