//! The protocols of the gateways as sans-IO codecs: bytes in, bytes out, all pipelined requests of a chunk in one call.
//!
//! A codec owns no socket, no clock and no table. What it hears is a peer's word: every length is checked against what
//! is there, nothing grows beyond the codec's own stated bound, and whole equals byte by byte equals any split. It keeps
//! nothing of a request that was answered.

use crate::decide::Verdict;

pub mod chunked;
pub mod dns;
mod held;
pub mod http;
mod http_head;
pub mod icap;
mod icap_head;
pub mod language;
pub mod spop;
pub mod squid;
pub mod transfer;

/// What is answered to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// What the client should do.
    pub verdict: Verdict,
    /// The list that blocks, or whose exception lets through; empty where no rule decides.
    pub list: &'a str,
}

/// The stop page in one language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page<'a> {
    /// All header lines that go with it, each ended by CR LF, Content-Length among them.
    pub head: &'a [u8],
    /// The HTML.
    pub body: &'a [u8],
}

/// Who decides and counts for a codec.
pub trait Decide {
    /// Decides a URL, any bytes, and counts it; None: this node has nothing to decide with yet.
    fn url(&mut self, url: &[u8]) -> Option<Answer<'_>>;

    /// A text with the URL that is asked about after the next one; see [`crate::ahead`]. Nothing depends on it.
    fn ahead(&mut self, _text: &[u8]) {}

    /// Decides what is known of a host alone (CONNECT, SNI), and counts it; None as above.
    fn host(&mut self, host: &[u8]) -> Option<Answer<'_>>;

    /// Decides a host that the answer about a decided one leads over (a CNAME's target): the same question of the same
    /// asker, so that it counts only where it is what blocks; None as above.
    fn alias(&mut self, host: &[u8]) -> Option<Answer<'_>>;

    /// The stop page of a list (empty: of no list in particular) for an `Accept-Language` value.
    fn page(&self, list: &str, accept_language: &[u8]) -> Page<'_>;

    /// Changes whenever an answer may have changed: 1 to 30 bytes of `[0-9a-z-]`.
    fn tag(&self) -> &str;
}

/// What becomes of the connection once the output is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// It goes on.
    Open,
    /// It ends: the peer asked for it, or broke the protocol.
    Close,
}

/// One connection's state.
pub trait Codec {
    /// Takes what was read, appends what is to be written. After [`Flow::Close`] it is not called again.
    fn feed<D: Decide>(&mut self, input: &[u8], gate: &mut D, output: &mut Vec<u8>) -> Flow;

    /// Whether a request has begun and is not answered: such a connection is cut off when it takes too long, an idle one may stay.
    fn unfinished(&self) -> bool;

    /// Bytes of memory kept until the next call: never more than twice the codec's stated bound and what was read last.
    fn memory(&self) -> usize;

    /// The gateway is about to end: the next answer, or that to the last question of a read, says so where the protocol can,
    /// and is the last.
    fn drain(&mut self);
}
