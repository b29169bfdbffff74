//! Lists of digests: rules whose host and path are known as MD5 only, found by digesting the request.
//!
//! Such a rule is stored as one of a host that cannot exist (RFC 6761 `.invalid`): `<md5 of host>.bpjm-md5.invalid`, any
//! path, or exactly the path `/<md5 of path>`. Its nodes lie under `invalid,bpjm-md5,`, so no format had to change; a
//! table without that node, or a policy without a list there, pays one comparison. Otherwise each decision costs one
//! MD5 and one probe more, and only a host that is found has its path digested, border by border.
//!
//! The host is digested without `www.`, the path without and with its leading slash (both mean one page), up to and with
//! the slash of each border, whole, and whole with its query. MD5 is what the lists are made of and protects nothing.

use md5::{Digest as _, Md5};

use crate::canonical::Canonical;
use crate::decide::{Match, Watch};
use crate::flags::{self, Branch};
use crate::node::{LookupKey, NodeId, Walk};
use crate::table::Table;

/// What stands before the digest in the SURT of such a rule.
const BRANCH: &[u8] = b"invalid,bpjm-md5,";
/// What such a rule's host ends in.
const SUFFIX: &[u8] = b".bpjm-md5.invalid";
/// Most borders that are digested: the depth of a record is one byte.
pub const MAX_BORDERS: usize = 256;
/// An MD5 in hexadecimal.
const HEX: usize = 32;
/// Where path rules of a host are; a list that ignores case has its own branch, though its digests cannot ignore it.
const BRANCHES: [Branch; 2] = [Branch { subdomains: false, folded: false }, Branch { subdomains: false, folded: true }];

/// The node above all such rules.
pub fn branch(key: &LookupKey) -> NodeId {
    key.walk().step(BRANCH).id()
}

/// Whether a requested host only looks like such a rule.
pub fn is_reserved(host: &[u8]) -> bool {
    host.ends_with(SUFFIX)
}

/// A host with such rules.
pub struct Host {
    node: usize,
    walk: Walk,
    name: [u8; HEX],
}

/// Digests a host and looks it up, if the table has such rules in one of `lists`.
#[inline]
pub fn look_up<W: Watch>(table: &Table, lists: u64, url: &Canonical, watch: &mut W) -> Option<Host> {
    let node = table.hashed()?;
    if table.effect(node)[flags::CHILD] & lists == 0 { None } else { find(table, url, watch) }
}

fn find<W: Watch>(table: &Table, url: &Canonical, watch: &mut W) -> Option<Host> {
    let name = name(url);
    let walk = table.key().walk().step(BRANCH).step(&name).step(b",");
    let node = table.find(walk.id());
    watch.probed(&|| prefix(&name), node);
    node.map(|node| Host { node, walk, name })
}

/// The host of the rules that are about a URL's host.
pub fn pseudonym(url: &Canonical) -> Vec<u8> {
    [&name(url)[..], SUFFIX].concat()
}

fn name(url: &Canonical) -> [u8; HEX] {
    let host = match url.host().strip_prefix(b"www.") {
        Some(rest) if rest.contains(&b'.') => rest,
        _ => url.host(),
    };
    hex(&Md5::digest(host).into())
}

fn prefix(name: &[u8; HEX]) -> Vec<u8> {
    [BRANCH, name, b","].concat()
}

impl Host {
    /// The rules for the whole host.
    pub fn ended<W: Watch>(&self, table: &Table, lists: u64, watch: &mut W) -> Option<Match> {
        let lists = table.effect(self.node)[flags::HOST] & lists;
        let found = Match { lists, bit: flags::HOST, nodes: [Some(self.node), None], hashed: true };
        (lists != 0).then(|| watch.matched(&found)).map(|()| found)
    }

    /// The lists that have path rules below it.
    pub fn paths(&self, table: &Table) -> u64 {
        let effect = table.effect(self.node);
        BRANCHES.iter().fold(0, |lists, branch| lists | effect[branch.bit(false)])
    }
}

/// The walk along a path below a digested host.
pub struct PathWalk<'a> {
    host: &'a Host,
    text: &'a [u8],
    lists: u64,
    /// The digest so far, of the path without its leading slash and with it.
    spellings: [Md5; 2],
    at: usize,
    found: Option<Match>,
}

impl<'a> PathWalk<'a> {
    /// A walk along `text`, a canonical path and query; `None` where no such rule can be.
    pub fn new(table: &Table, host: &'a Host, lists: u64, text: &'a [u8]) -> Option<Self> {
        let spellings = [Md5::new(), Md5::new_with_prefix(b"/")];
        let walk = Self { host, text, lists, spellings, at: 1, found: None };
        (host.paths(table) & lists != 0).then_some(walk)
    }

    /// Digests up to `end` and looks that up; a match is reported as one that ends in `bit`.
    pub fn step<W: Watch>(&mut self, table: &Table, end: usize, bit: usize, watch: &mut W) {
        let effect = table.effect(self.host.node);
        for digest in &mut self.spellings {
            digest.update(&self.text[self.at..end]);
            let name = hex(&digest.clone().finalize().into());
            for branch in BRANCHES.iter().filter(|branch| effect[branch.bit(false)] & self.lists != 0) {
                let node = table.find(self.host.walk.clone().step(branch.mark()).step(b"/").step(&name).id());
                watch.probed(&|| [&prefix(&self.host.name), branch.mark(), b"/", &name].concat(), node);
                let lists = node.map_or(0, |node| table.effect(node)[flags::EXACT] & self.lists);
                if lists == 0 {
                    continue;
                }
                watch.matched(&Match { lists, bit, nodes: [node, None], hashed: true });
                let found = self.found.get_or_insert(Match { lists: 0, bit, nodes: [None; 2], hashed: true });
                found.lists |= lists;
                found.nodes[usize::from(branch.folded)] = node;
            }
        }
        self.at = end;
    }

    /// Takes what the last step found.
    pub fn take(&mut self) -> Option<Match> {
        self.found.take()
    }
}

fn hex(digest: &[u8; 16]) -> [u8; HEX] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |at: usize| DIGITS[usize::from(if at % 2 == 0 { digest[at / 2] >> 4 } else { digest[at / 2] & 15 })];
    std::array::from_fn(digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_reference_digests() {
        // RFC 1321, appendix A.5.
        for (text, digest) in
            [("", "d41d8cd98f00b204e9800998ecf8427e"), ("message digest", "f96b697d7cb7938d525a2f31aaf161d0")]
        {
            assert_eq!(hex(&Md5::digest(text).into()), digest.as_bytes());
        }
    }

    #[test]
    fn only_hosts_below_the_reserved_name_are_reserved() {
        assert!(is_reserved(b"0.bpjm-md5.invalid"));
        assert!(!is_reserved(b"bpjm-md5.invalid.example"));
        assert!(!is_reserved(b"xbpjm-md5.invalid"));
    }
}
