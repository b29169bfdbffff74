//! DNS over a connection: messages with their length before them (RFC 1035, section 4.2.2; RFC 7766; RFC 7858).
//!
//! Answers may come in any order, so whoever waits for another resolver holds nobody up. Bound: one message, of at most
//! 64 KiB, is held.

use std::time::Duration;

use super::message::HEADER_BYTES;
use super::reply::{Transport, put_u16};
use super::upstream::Question;
use super::{Service, Step};
use crate::wire::held::Held;
use crate::wire::{Decide, Flow};

/// One connection.
pub struct Stream {
    /// The beginning of a message that is not whole.
    held: Held,
    transport: Transport,
}

impl Stream {
    /// `encrypted`: whether nobody else can read it.
    pub fn new(encrypted: bool) -> Self {
        let transport = if encrypted { Transport::Encrypted } else { Transport::Stream };
        Self { held: Held::default(), transport }
    }

    /// Takes what was read; appends what is to be written, and what somebody else is to be asked.
    pub fn feed<D: Decide>(
        &mut self,
        input: &[u8],
        service: &mut Service,
        gate: &mut D,
        now: Duration,
        output: &mut Vec<u8>,
        forwards: &mut Vec<Question>,
    ) -> Flow {
        let transport = self.transport;
        self.held.feed(input, |mut data| {
            while let Some(length) = data.first_chunk() {
                let length = usize::from(u16::from_be_bytes(*length));
                // Who sends less than a header does not speak DNS.
                if length < HEADER_BYTES {
                    return (Flow::Close, &[]);
                }
                let Some(message) = data.get(2..2 + length) else { break };
                data = &data[2 + length..];
                let start = output.len();
                put_u16(0, output);
                match service.answer(message, transport, gate, now, output) {
                    Step::Answered => set_length(output, start),
                    Step::Dropped => output.truncate(start),
                    Step::Forward(question) => {
                        output.truncate(start);
                        forwards.push(question);
                    }
                }
            }
            (Flow::Open, data)
        })
    }

    /// Whether a message has begun that is not whole.
    pub fn unfinished(&self) -> bool {
        !self.held.is_empty()
    }
}

/// Puts its length before the message that begins after two bytes at `start`.
pub fn set_length(output: &mut [u8], start: usize) {
    let length = (output.len() - start - 2) as u16;
    output[start..start + 2].copy_from_slice(&length.to_be_bytes());
}
