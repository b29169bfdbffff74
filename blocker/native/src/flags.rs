//! What ends or continues at a node, as one bit per fact; per list in segments, one mask of lists per bit in tables.

/// A domain rule ends here.
pub const DOMAIN: usize = 0;
/// A host rule ends here.
pub const HOST: usize = 1;
/// A path prefix ends here.
pub const PREFIX: usize = 2;
/// An exact path ends here, for any query.
pub const EXACT: usize = 3;
/// An exact path and query end here.
pub const EXACT_QUERY: usize = 4;
/// Deeper labels continue.
pub const CHILD: usize = 5;
/// First of the eight bits that say which path rules continue from a host; see [`paths`].
pub const PATHS: usize = 6;
/// Number of bits.
pub const COUNT: usize = 14;

/// The bits that end a rule.
pub const ENDS: usize = 5;

/// How the path rules below a host are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Branch {
    /// On every subdomain as well.
    pub subdomains: bool,
    /// ASCII case folded.
    pub folded: bool,
}

impl Branch {
    /// All four, in the order of their bits.
    pub const ALL: [Self; 4] = [
        Self { subdomains: false, folded: false },
        Self { subdomains: false, folded: true },
        Self { subdomains: true, folded: false },
        Self { subdomains: true, folded: true },
    ];

    /// The mark that closes the host in the SURT of this branch's nodes.
    pub fn mark(self) -> &'static [u8] {
        match (self.subdomains, self.folded) {
            (false, false) => b")",
            (false, true) => b"|",
            (true, false) => b"*)",
            (true, true) => b"*|",
        }
    }

    /// The bit that says that prefix rules (or else exact rules) continue in this branch.
    pub const fn bit(self, prefix: bool) -> usize {
        PATHS + 4 * self.subdomains as usize + 2 * self.folded as usize + prefix as usize
    }
}
