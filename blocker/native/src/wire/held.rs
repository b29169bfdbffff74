//! The beginning of a message that is not whole yet: all that a codec keeps of what it read.

use super::Flow;

/// Bytes that wait for those after them.
#[derive(Default)]
pub struct Held(Vec<u8>);

impl Held {
    /// Has `consume` take what is held and what was read, as one. What it hands back as left over is held; without anything
    /// held, nothing else is copied, and the memory is let go once nothing is left.
    pub fn feed(&mut self, input: &[u8], consume: impl FnOnce(&[u8]) -> (Flow, &[u8])) -> Flow {
        if self.0.is_empty() {
            let (flow, left) = consume(input);
            self.0.extend_from_slice(left);
            return flow;
        }
        self.0.extend_from_slice(input);
        let (flow, left) = consume(&self.0);
        let kept = left.len();
        if kept == 0 {
            self.0 = Vec::new();
        } else {
            self.0.drain(..self.0.len() - kept);
        }
        flow
    }

    /// Bytes of memory kept.
    pub fn memory(&self) -> usize {
        self.0.capacity()
    }

    /// Whether a message has begun.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
