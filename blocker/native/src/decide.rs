//! The decision: one walk from the top-level domain down to the query, the last word being the most specific.
//!
//! Everything a rule can say about a URL lies on that walk, in ascending order of specificity: domains, shortest first;
//! the host; path prefixes, shortest first; the exact path; the exact path and query. So each match simply overrules
//! what came before it. At one and the same step `allow` wins over `block`, and among blocks the policy's order names
//! the list. A path rule with `*.` is looked at just before the same path on the exact host, shorter bases first.
//!
//! The walk stops at the first label that is no node, so an unlisted host costs two or three probes, and no request can
//! cost more probes than its host has listed labels plus, under a listed host, the depth of the deepest prefix rule.
//!
//! Rules that are known as digests only ([`crate::hashed`]) are looked for beside that walk and count at its steps: what
//! a digest stands for is as specific as if it were written out.

use crate::canonical::{Canonical, UrlError};
use crate::flags::{self, Branch};
use crate::hashed;
use crate::node::Walk;
pub use crate::policy::Policy;
use crate::rule::Kind;
use crate::surt;
use crate::table::{Effect, Table};

/// What a client should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Let it through.
    Allow,
    /// Look at the full URL.
    Inspect,
    /// Stop it.
    Block,
}

impl Verdict {
    /// As it is written everywhere.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Inspect => "inspect",
            Self::Block => "block",
        }
    }
}

/// One matching rule, or several of one specificity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    /// The lists it is in.
    pub lists: u64,
    /// Bit of [`flags`] that ends there.
    pub bit: usize,
    /// The nodes it was found at, case-sensitive and folded.
    pub nodes: [Option<usize>; 2],
    /// Whether only a digest was compared, in all of these lists.
    pub hashed: bool,
}

impl Match {
    /// What was found, with what a digest of equal specificity gave.
    fn joined(self, digest: Option<Self>) -> Self {
        match digest {
            Some(digest) if self.lists == 0 => digest,
            Some(digest) => Self { lists: self.lists | digest.lists, ..self },
            None => self,
        }
    }

    /// The kind of rule that ends in such a bit.
    pub fn kind(&self) -> Kind {
        match self.bit {
            flags::DOMAIN => Kind::Domain,
            flags::HOST => Kind::Host,
            flags::PREFIX => Kind::Prefix,
            _ => Kind::Exact,
        }
    }
}

/// The outcome of a walk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// The match that decided, if any.
    pub winner: Option<Match>,
    /// Whether it is an exception.
    pub allowed: bool,
    /// Shadow lists that would block by themselves, the enforced exceptions in force.
    pub shadow: u64,
}

impl Outcome {
    /// Block or allow.
    pub fn verdict(&self) -> Verdict {
        if self.winner.is_some() && !self.allowed { Verdict::Block } else { Verdict::Allow }
    }

    fn apply(&mut self, found: Match, policy: &Policy) {
        let allow = found.lists & policy.allow;
        let block = found.lists & policy.block;
        if allow != 0 {
            *self = Self { winner: Some(Match { lists: allow, ..found }), allowed: true, shadow: 0 };
            return;
        }
        self.shadow |= found.lists & policy.shadow;
        if block != 0 {
            self.winner = Some(Match { lists: block, ..found });
            self.allowed = false;
        }
    }
}

/// Watches a walk, for `explain`; the unit type watches nothing and costs nothing.
pub trait Watch {
    /// A prefix was looked up.
    fn probed(&mut self, _prefix: &dyn Fn() -> Vec<u8>, _node: Option<usize>) {}
    /// Rules of the policy ended there.
    fn matched(&mut self, _found: &Match) {}
}

impl Watch for () {}

/// A host whose path rules are to be looked at.
struct Base {
    subdomains: bool,
    /// Length of its SURT prefix.
    length: usize,
    walk: Walk,
    effect: Effect,
}

/// The state of one walk; reusable, so that a hot caller allocates once.
#[derive(Default)]
pub struct Walker {
    url: Canonical,
    surt: Vec<u8>,
    folded: Vec<u8>,
    bases: Vec<Base>,
    hashed: Option<hashed::Host>,
}

impl Walker {
    /// Decides a URL.
    pub fn decide(&mut self, table: &Table, policy: &Policy, url: &[u8]) -> Result<Outcome, UrlError> {
        self.watch(table, policy, url, &mut ())
    }

    /// Decides a URL and shows every step to `watch`.
    pub fn watch<W: Watch>(
        &mut self,
        table: &Table,
        policy: &Policy,
        url: &[u8],
        watch: &mut W,
    ) -> Result<Outcome, UrlError> {
        self.url.set(url)?;
        let mut outcome = Outcome::default();
        self.hosts(table, policy, &mut outcome, watch);
        if !self.bases.is_empty() || self.hashed.is_some() {
            self.paths(table, policy, &mut outcome, watch);
        }
        Ok(outcome)
    }

    /// What is known of a host before its URLs are seen; `None` where only they can tell.
    ///
    /// Shadow lists change nothing here: nothing is sent to inspection for their sake.
    pub fn decide_host(&mut self, table: &Table, policy: &Policy, host: &[u8]) -> Result<(Verdict, Outcome), UrlError> {
        self.url.set(host)?;
        let mut outcome = Outcome::default();
        self.hosts(table, policy, &mut outcome, &mut ());
        let mut below = 0;
        for base in &self.bases {
            for branch in Branch::ALL.into_iter().filter(|branch| branch.subdomains == base.subdomains) {
                below |= base.effect[branch.bit(false)] | base.effect[branch.bit(true)];
            }
        }
        if let Some(host) = &self.hashed {
            below |= host.paths(table);
        }
        let blocked = outcome.verdict() == Verdict::Block;
        let verdict = if blocked && below & policy.allow == 0 {
            Verdict::Block
        } else if below & (policy.allow | policy.block) != 0 {
            // Nothing is decided yet, so no rule is named.
            outcome.winner = None;
            Verdict::Inspect
        } else {
            outcome.verdict()
        };
        Ok((verdict, outcome))
    }

    /// The canonical URL of the last walk.
    pub fn url(&self) -> &Canonical {
        &self.url
    }

    /// Looks for the host as it is and as a digest; leaves in `bases` and `hashed` those with path rules.
    fn hosts<W: Watch>(&mut self, table: &Table, policy: &Policy, outcome: &mut Outcome, watch: &mut W) {
        self.bases.clear();
        self.hashed = None;
        if table.hashed().is_some() && hashed::is_reserved(self.url.host()) {
            return;
        }
        let plain = self.labels(table, policy, outcome, watch);
        self.hashed = hashed::look_up(table, policy.all(), &self.url, watch);
        let digest = self.hashed.as_ref().and_then(|host| host.ended(table, policy.all(), watch));
        if let Some(found) = plain.map_or(digest, |plain| Some(plain.joined(digest))) {
            outcome.apply(found, policy);
        }
    }

    /// Walks the labels; leaves in `bases` the hosts with path rules, in ascending specificity. The rules of the whole
    /// host are handed back, since they are not the only ones as specific.
    fn labels<W: Watch>(
        &mut self,
        table: &Table,
        policy: &Policy,
        outcome: &mut Outcome,
        watch: &mut W,
    ) -> Option<Match> {
        self.surt.clear();
        surt::push_host(self.url.host(), self.url.is_address(), &mut self.surt);
        let mut walk = table.key().walk();
        let (mut start, lists) = (0, policy.all());
        for end in surt::labels(&self.surt) {
            walk.advance(&self.surt[start..end]);
            start = end;
            let node = table.find(walk.id());
            watch.probed(&|| self.surt[..end].to_vec(), node);
            let node = node?;
            let effect = table.effect(node);
            let mut ended = |bit: usize| {
                let found = Match { lists: effect[bit] & lists, bit, nodes: [Some(node), None], hashed: false };
                if found.lists != 0 {
                    watch.matched(&found);
                }
                found
            };
            outcome.apply(ended(flags::DOMAIN), policy);
            let whole = end == self.surt.len();
            let host = if whole { Some(ended(flags::HOST)) } else { None };
            for subdomains in [true, false] {
                let [plain, folded] = [false, true].map(|folded| Branch { subdomains, folded });
                let below = [plain.bit(false), plain.bit(true), folded.bit(false), folded.bit(true)];
                if (subdomains || whole) && below.iter().any(|&bit| effect[bit] & lists != 0) {
                    self.bases.push(Base { subdomains, length: end, walk: walk.clone(), effect: *effect });
                }
            }
            if whole || effect[flags::CHILD] & lists == 0 {
                return host;
            }
        }
        None
    }

    /// Walks the path below every base.
    fn paths<W: Watch>(&mut self, table: &Table, policy: &Policy, outcome: &mut Outcome, watch: &mut W) {
        let lists = policy.all();
        let (path, query) = (self.url.path(), self.url.query());
        let mut branches: Vec<PathWalk<'_>> = Vec::with_capacity(self.bases.len() * 2);
        self.folded.clear();
        for (number, base) in self.bases.iter().enumerate() {
            for folded in [false, true] {
                let branch = Branch { subdomains: base.subdomains, folded };
                let (exact, prefix) = (base.effect[branch.bit(false)] & lists, base.effect[branch.bit(true)] & lists);
                if exact | prefix == 0 {
                    continue;
                }
                if folded && self.folded.is_empty() {
                    self.folded.extend(self.url.path_and_query().iter().map(u8::to_ascii_lowercase));
                }
                let walk = base.walk.clone().step(branch.mark());
                branches.push(PathWalk { base: number, branch, walk, at: 0, exact, prefix, node: None, text: &[] });
            }
        }
        for branch in &mut branches {
            branch.text = if branch.branch.folded { &self.folded } else { self.url.path_and_query() };
        }
        let text = self.url.path_and_query();
        let hashed = self.hashed.as_ref().and_then(|host| hashed::PathWalk::new(table, host, lists, text));
        let deepest = if hashed.is_some() { table.depth().max(hashed::MAX_BORDERS) } else { table.depth() };
        let mut step = Step { table, lists, policy, outcome, watch, surt: &self.surt, bases: &self.bases, hashed };
        // Borders: every slash but the first, so `/a` and `/a/b` of `/a/b/c`; deeper than any prefix rule none matters.
        let mut level = 0;
        for border in memchr::memchr_iter(b'/', path).skip(1).take(deepest) {
            level += 1;
            step.digest(border + 1, flags::PREFIX);
            step.probe(&mut branches, border, |branch| branch.prefix != 0);
            step.ended(&branches, flags::PREFIX);
        }
        step.probe(&mut branches, path.len(), |_| true);
        if path.last() != Some(&b'/') {
            if level < table.depth() {
                step.ended(&branches, flags::PREFIX);
            }
            step.digest(path.len(), flags::EXACT);
        }
        step.ended(&branches, flags::EXACT);
        if let Some(query) = query {
            let end = path.len() + 1 + query.len();
            step.digest(end, flags::EXACT_QUERY);
            step.probe(&mut branches, end, |branch| branch.exact != 0);
            step.ended(&branches, flags::EXACT_QUERY);
        }
    }
}

/// The walk along a path below one base, in one of its branches.
struct PathWalk<'a> {
    base: usize,
    branch: Branch,
    walk: Walk,
    at: usize,
    exact: u64,
    prefix: u64,
    node: Option<usize>,
    text: &'a [u8],
}

/// What every step along a path needs.
struct Step<'a, W> {
    table: &'a Table,
    lists: u64,
    policy: &'a Policy,
    outcome: &'a mut Outcome,
    watch: &'a mut W,
    surt: &'a [u8],
    bases: &'a [Base],
    hashed: Option<hashed::PathWalk<'a>>,
}

impl<W: Watch> Step<'_, W> {
    /// Takes every wanted branch to `end` and looks its node up there.
    fn probe(&mut self, branches: &mut [PathWalk<'_>], end: usize, wanted: impl Fn(&PathWalk<'_>) -> bool) {
        for branch in branches {
            branch.node = None;
            if wanted(branch) {
                branch.walk.advance(&branch.text[branch.at..end]);
                branch.at = end;
                branch.node = self.table.find(branch.walk.id());
                let host = &self.surt[..self.bases[branch.base].length];
                self.watch.probed(&|| [host, branch.branch.mark(), &branch.text[..end]].concat(), branch.node);
            }
        }
    }

    /// Digests the path up to `end` and looks that up; what is found counts at the next call of `ended`.
    fn digest(&mut self, end: usize, bit: usize) {
        if let Some(hashed) = &mut self.hashed {
            hashed.step(self.table, end, bit, self.watch);
        }
    }

    /// Applies what ends at the branches' nodes, base by base; the two branches of a base are of equal specificity, and
    /// a digest counts with the exact host.
    fn ended(&mut self, branches: &[PathWalk<'_>], bit: usize) {
        let mut digest = self.hashed.as_mut().and_then(hashed::PathWalk::take);
        let mut rest = branches;
        while let Some(first) = rest.first() {
            let (own, others) = rest.split_at(rest.iter().take_while(|branch| branch.base == first.base).count());
            rest = others;
            let mut found = Match { lists: 0, bit, nodes: [None; 2], hashed: false };
            for branch in own {
                let lists = branch.node.map_or(0, |node| self.table.effect(node)[bit] & self.lists);
                if lists != 0 {
                    found.lists |= lists;
                    found.nodes[usize::from(branch.branch.folded)] = branch.node;
                }
            }
            if found.lists != 0 {
                self.watch.matched(&found);
            }
            let digest = if first.branch.subdomains { None } else { digest.take() };
            self.outcome.apply(found.joined(digest), self.policy);
        }
        if let Some(digest) = digest {
            self.outcome.apply(digest, self.policy);
        }
    }
}

/// The reference of a match in one list.
pub fn reference<'t>(table: &'t Table, found: &Match, list: usize) -> Option<&'t str> {
    // A digest does not tell a prefix from a page: all such rules are kept as pages.
    let bit = if found.hashed && found.bit != flags::HOST { flags::EXACT } else { found.bit };
    found.nodes.iter().flatten().find_map(|&node| table.reference(node, list, bit))
}

/// The SURT of a URL.
pub fn surt_of(url: &Canonical) -> String {
    let mut out = Vec::new();
    surt::push_host(url.host(), url.is_address(), &mut out);
    out.push(surt::EXACT_HOST);
    out.extend_from_slice(url.path_and_query());
    String::from_utf8(out).expect("canonical URLs are ASCII")
}
