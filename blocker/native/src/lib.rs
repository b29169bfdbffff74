//! The native core of Blocker: what must take less than a microsecond. Everything else is Python.
//!
//! - [`canonical`], [`host`], [`escape`]: canonical URLs
//! - [`rule`], [`ruleset`], [`lines`]: rules as text
//! - [`surt`], [`node`], [`flags`], [`run`], [`segment`]: a list as nodes of the trie
//! - [`table`], [`merge`], [`decide`]: all lists as one immutable table, and the walk through it
//! - [`ahead`]: what coming decisions need, brought beforehand
//! - [`policy`]: which lists of a table hold for whom
//! - [`hashed`]: rules that are known as digests only
//! - [`hits`]: the hit matrix
//! - [`batch`]: many URLs as JSON, and what is told of each
//! - [`wire`]: the gateways' protocols
//! - [`datagrams`]: many datagrams in one call of the system
//! - [`courtesy`]: long work that lets others go first
//! - [`zone`]: lists as the names of a response policy zone
//! - `python`: the binding layer, the only part that knows Python

pub mod ahead;
pub mod batch;
pub mod canonical;
pub mod courtesy;
pub mod datagrams;
pub mod decide;
pub mod escape;
pub mod flags;
pub mod hashed;
pub mod hits;
pub mod host;
pub mod lines;
pub mod merge;
pub mod node;
pub mod policy;
mod probe;
pub mod rule;
pub mod ruleset;
pub mod run;
pub mod segment;
pub mod surt;
pub mod table;
pub mod wire;
pub mod zone;

#[cfg(feature = "python")]
mod python;
