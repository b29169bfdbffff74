//! A list as a sorted run of nodes: made from rules, cut into segments, folded from them, and compared.

use std::collections::HashSet;

use sha2::{Digest as _, Sha256};

use crate::flags::{self, Branch};
use crate::node::{LookupKey, NodeId, Walk};
use crate::rule::{Kind, Rule};
use crate::ruleset::RuleSet;
use crate::segment::{self, Node, Segment, SegmentError};
use crate::surt;

/// How a list's rules become nodes.
#[derive(Clone, Copy, Default)]
pub struct Options {
    /// `www.h` and `h` are one host.
    pub www_alias: bool,
    /// ASCII case of path and query is folded.
    pub fold_case: bool,
}

/// Nodes of one list, ascending by id, without repeats. An entry without flags is a tombstone (only in deltas).
#[derive(Default)]
pub struct NodeRun {
    pub(crate) ids: Vec<NodeId>,
    pub(crate) flags: Vec<u16>,
    /// (position, ending bit, reference), ascending.
    pub(crate) references: Vec<(u32, u8, Box<str>)>,
    /// Most path segments in any prefix rule: a walk need not look at deeper borders.
    pub(crate) depth: u32,
}

/// One fact about one node, as rules give it.
struct Fact {
    id: NodeId,
    bit: u8,
    rule: u32,
}

impl NodeRun {
    /// The nodes of `rules` under a key. Cost: one hash per label and rule, one sort.
    pub fn build(rules: &RuleSet, key: &LookupKey, options: Options) -> Self {
        let mut collector = Collector { key, facts: Vec::with_capacity(rules.len() * 2), interior: HashSet::new() };
        let mut host = HostWalk::default();
        for (at, entry) in rules.iter().enumerate() {
            for alias in aliases(&entry.rule, options.www_alias) {
                collector.push(&alias, options.fold_case, at as u32, &mut host);
            }
        }
        let Collector { mut facts, interior, .. } = collector;
        drop(interior);
        facts.sort_unstable_by_key(|fact| (fact.id, fact.bit, fact.rule));
        let mut run =
            Self { depth: rules.iter().map(|entry| depth(&entry.rule)).max().unwrap_or(0), ..Self::default() };
        for fact in facts {
            if run.ids.last() != Some(&fact.id) {
                run.ids.push(fact.id);
                run.flags.push(0);
            }
            let at = run.ids.len() as u32 - 1;
            *run.flags.last_mut().expect("just pushed") |= 1 << fact.bit;
            if usize::from(fact.bit) < flags::ENDS {
                let reference = rules.get(fact.rule as usize).map_or("", |entry| entry.reference);
                let taken = run.references.last().is_some_and(|last| (last.0, last.1) == (at, fact.bit));
                // Rules are in canonical order: where several meet in one node, the first one's reference stands.
                if !reference.is_empty() && !taken {
                    run.references.push((at, fact.bit, reference.into()));
                }
            }
        }
        run
    }

    /// Number of nodes, tombstones included.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The nodes in order.
    pub fn nodes(&self) -> impl Iterator<Item = Node<'_>> {
        let mut references = self.references.as_slice();
        self.ids.iter().zip(&self.flags).enumerate().map(move |(at, (&id, &flags))| {
            let count = references.iter().take_while(|reference| reference.0 as usize == at).count();
            let (own, rest) = references.split_at(count);
            references = rest;
            Node { id, flags, references: own.iter().map(|(_, bit, text)| (*bit, &**text)).collect() }
        })
    }

    /// Appends a node that sorts after all others.
    pub fn push(&mut self, node: &Node<'_>) {
        let at = self.ids.len() as u32;
        self.ids.push(node.id);
        self.flags.push(node.flags);
        self.references.extend(node.references.iter().map(|&(bit, text)| (at, bit, text.into())));
    }

    /// SHA-256 over all nodes, however they are cut into segments and layers.
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(b"blocker trie 1\0");
        hash.update((self.len() as u64).to_be_bytes());
        for node in self.nodes() {
            hash.update(node.id.to_be_bytes());
            hash.update(node.flags.to_be_bytes());
            hash.update([node.references.len() as u8]);
            for (bit, text) in &node.references {
                hash.update([*bit, text.len() as u8]);
                hash.update(text.as_bytes());
            }
        }
        hash.finalize().into()
    }

    /// What must be laid over this run to get `newer`: changed nodes, and tombstones for those that left.
    pub fn diff(&self, newer: &Self) -> Self {
        let mut delta = Self { depth: newer.depth, ..Self::default() };
        let (mut old, mut new) = (self.nodes().peekable(), newer.nodes().peekable());
        loop {
            match (old.peek(), new.peek()) {
                (Some(a), Some(b)) if a.id == b.id => {
                    if a != b {
                        delta.push(b);
                    }
                    old.next();
                    new.next();
                }
                (Some(a), b) if b.is_none_or(|b| a.id < b.id) => {
                    delta.push(&Node { id: a.id, flags: 0, references: Vec::new() });
                    old.next();
                }
                (_, Some(b)) => {
                    delta.push(b);
                    new.next();
                }
                (_, None) => return delta,
            }
        }
    }

    /// The run as segments of about `max_bytes` each; one, of no nodes, if it is empty.
    pub fn segments(&self, key: &LookupKey, max_bytes: usize) -> Vec<Vec<u8>> {
        let mut cuts = vec![0];
        let (mut bytes, mut references) = (0, self.references.iter().peekable());
        for at in 0..self.len() {
            let mut size = segment::NODE_BYTES;
            while let Some((_, _, text)) = references.next_if(|reference| reference.0 as usize == at) {
                size += segment::REFERENCE_BYTES + text.len();
            }
            if bytes > 0 && bytes + size > max_bytes {
                cuts.push(at);
                bytes = 0;
            }
            bytes += size;
        }
        cuts.push(self.len());
        cuts.windows(2).map(|cut| segment::encode(self, cut[0]..cut[1], key)).collect()
    }

    /// Folds layers, oldest first, each a list of segments in order.
    pub fn fold(layers: &[Vec<Segment<'_>>]) -> Result<Self, SegmentError> {
        let depth = layers.iter().flatten().map(Segment::depth).max().unwrap_or(0);
        let mut run = Self { depth, ..Self::default() };
        let mut folded = Fold::new(layers)?;
        while let Some(node) = folded.next_node()? {
            run.push(&node);
        }
        Ok(run)
    }
}

/// The nodes of several layers, newer ones hiding older ones, tombstones left out.
pub struct Fold<'a> {
    layers: Vec<segment::Cursor<'a>>,
}

impl<'a> Fold<'a> {
    /// Layers are oldest first.
    pub fn new(layers: &'a [Vec<Segment<'a>>]) -> Result<Self, SegmentError> {
        let layers = layers.iter().map(|segments| segment::Cursor::new(segments)).collect::<Result<_, _>>()?;
        Ok(Self { layers })
    }

    /// The next node by id.
    pub fn next_node(&mut self) -> Result<Option<Node<'a>>, SegmentError> {
        loop {
            let Some(id) = self.layers.iter().filter_map(segment::Cursor::id).min() else {
                return Ok(None);
            };
            let mut newest = None;
            for layer in &mut self.layers {
                if layer.id() == Some(id) {
                    newest = layer.take()?;
                }
            }
            if newest.as_ref().is_some_and(|node| node.flags != 0) {
                return Ok(newest);
            }
        }
    }
}

/// The rules to store for one rule: itself, and with the alias on its twin with or without `www.`.
///
/// One leading `www.` is removed from rule and request before hosts are compared, if a name with a dot remains. A domain rule on
/// `www.h` therefore also covers `h` itself, but no other subdomain of `h`.
pub(crate) fn aliases<'a>(rule: &Rule<'a>, www_alias: bool) -> Vec<RuleOn<'a>> {
    let own = RuleOn { host: HostName { www: false, name: rule.host }, rule: *rule };
    if !www_alias || crate::host::is_address(rule.host) {
        return vec![own];
    }
    let named = |rest: &&[u8]| rest.contains(&b'.') && !crate::host::is_address(rest);
    let strip = |host: &'a [u8]| host.strip_prefix(b"www.").filter(named);
    let base = strip(rule.host).unwrap_or(rule.host);
    let mut on = Vec::with_capacity(2);
    if rule.kind == Kind::Domain || rule.subdomains {
        // Subdomains are covered from the rule's own host down; only the bare twin of `www.h` is missing.
        on.push(own);
        if base.len() < rule.host.len() && strip(base).is_none() {
            let kind = if rule.kind == Kind::Domain { Kind::Host } else { rule.kind };
            let twin = Rule { kind, host: base, subdomains: false, ..*rule };
            on.push(RuleOn { host: HostName { www: false, name: base }, rule: twin });
        }
        return on;
    }
    // The base itself stays out when its own leading `www.` would be removed from a request as well.
    if strip(base).is_none() {
        on.push(RuleOn { host: HostName { www: false, name: base }, rule: Rule { host: base, ..*rule } });
    }
    if base.contains(&b'.') {
        on.push(RuleOn { host: HostName { www: true, name: base }, rule: *rule });
    }
    on
}

/// Number of path segments of a prefix rule; 0 for the others.
fn depth(rule: &Rule<'_>) -> u32 {
    let slashes = || memchr::memchr_iter(b'/', rule.path).count() as u32;
    if rule.kind == Kind::Prefix { slashes() - 1 } else { 0 }
}

/// A host name, perhaps with `www.` put in front.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct HostName<'a> {
    pub(crate) www: bool,
    pub(crate) name: &'a [u8],
}

/// A rule on a host that need not be its own.
pub(crate) struct RuleOn<'a> {
    pub(crate) host: HostName<'a>,
    pub(crate) rule: Rule<'a>,
}

/// The reversed form and hash state of the host last seen; rules come sorted by host.
#[derive(Default)]
struct HostWalk {
    host: Vec<u8>,
    www: bool,
    walk: Option<Walk>,
}

struct Collector<'k> {
    key: &'k LookupKey,
    facts: Vec<Fact>,
    /// Interior nodes stated already; every second rule shares its top-level domain with millions.
    interior: HashSet<NodeId>,
}

impl Collector<'_> {
    fn push(&mut self, on: &RuleOn<'_>, folded: bool, rule: u32, last: &mut HostWalk) {
        let HostName { www, name } = on.host;
        if last.walk.is_none() || last.host != name || last.www != www {
            *last = HostWalk { host: name.to_vec(), www, walk: Some(self.enter(on.host)) };
        }
        let Some(walk) = &last.walk else { return };
        let Rule { kind, path, query, subdomains, .. } = on.rule;
        match kind {
            Kind::Domain => self.state(walk.id(), flags::DOMAIN, rule),
            Kind::Host => self.state(walk.id(), flags::HOST, rule),
            Kind::Prefix | Kind::Exact => {
                let branch = Branch { subdomains, folded };
                self.state(walk.id(), branch.bit(kind == Kind::Prefix), rule);
                let mut below = walk.clone().step(branch.mark());
                let fold = |bytes: &[u8]| {
                    if folded { bytes.to_ascii_lowercase() } else { bytes.to_vec() }
                };
                // A prefix's node is the border itself, so that `/a` and `/a/b` both pass through it.
                let border = if kind == Kind::Prefix { path.len() - 1 } else { path.len() };
                below.advance(&fold(&path[..border]));
                if let Some(query) = query {
                    below.advance(b"?");
                    below.advance(&fold(query));
                }
                let bit = match (kind, query) {
                    (Kind::Prefix, _) => flags::PREFIX,
                    (_, None) => flags::EXACT,
                    (_, Some(_)) => flags::EXACT_QUERY,
                };
                self.state(below.id(), bit, rule);
            }
        }
    }

    /// Walks to a host, stating the interior nodes on the way.
    fn enter(&mut self, host: HostName<'_>) -> Walk {
        let mut reversed = Vec::with_capacity(host.name.len() + 5);
        surt::push_host(host.name, crate::host::is_address(host.name), &mut reversed);
        if host.www {
            reversed.extend_from_slice(b"www,");
        }
        let mut walk = self.key.walk();
        let mut start = 0;
        for end in surt::labels(&reversed) {
            walk.advance(&reversed[start..end]);
            start = end;
            if end < reversed.len() && self.interior.insert(walk.id()) {
                self.state(walk.id(), flags::CHILD, 0);
            }
        }
        walk
    }

    fn state(&mut self, id: NodeId, bit: usize, rule: u32) {
        self.facts.push(Fact { id, bit: bit as u8, rule });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::Builder;

    fn key() -> LookupKey {
        LookupKey::new(&[7; 16])
    }

    fn run(paths: std::ops::Range<u32>) -> NodeRun {
        let mut builder = Builder::default();
        for number in paths {
            let path = format!("/{number}");
            let rule =
                Rule { kind: Kind::Exact, host: b"a.example", path: path.as_bytes(), query: None, subdomains: false };
            builder.push(&rule, if number % 3 == 0 { "ref" } else { "" }, "");
        }
        NodeRun::build(&builder.finish(), &key(), Options::default())
    }

    #[test]
    fn layers_fold_to_the_newest_run() {
        let (old, new) = (run(0..100), run(50..160));
        let delta = old.diff(&new);
        let (base, top) = (old.segments(&key(), 500), delta.segments(&key(), 700));
        assert!(base.len() > 3);
        let open = |segments: &'_ [Vec<u8>]| -> Vec<Vec<u8>> { segments.to_vec() };
        let (base, top) = (open(&base), open(&top));
        let layers: Vec<Vec<Segment<'_>>> =
            [&base, &top].map(|layer| layer.iter().map(|bytes| Segment::open(bytes, &key()).unwrap()).collect()).into();
        let folded = NodeRun::fold(&layers).unwrap();
        assert_eq!(folded.digest(), new.digest());
        assert_ne!(folded.digest(), old.digest());
        assert!(new.diff(&folded).is_empty());
    }

    #[test]
    fn a_removed_rule_leaves_no_interior_node() {
        let (some, none) = (run(0..1), run(0..0));
        assert_eq!(some.len(), 3);
        let delta = some.diff(&none);
        assert!(delta.flags.iter().all(|&flags| flags == 0));
        assert_eq!(delta.len(), 3);
    }
}
