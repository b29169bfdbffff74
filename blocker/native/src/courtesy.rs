//! Long work in a process that answers meanwhile: it offers its processor to whoever waits for it, again and again.
//!
//! A thread of lower priority still keeps a processor for its time slice, milliseconds, when the event loop wakes up on
//! the same one. Yielding needs no rights and costs half a microsecond when nobody waits. Not more often than this: each
//! time another process that is busy on the same processor takes a slice of its own.

/// Steps of a pass over nodes between two offers: some 0.2 ms.
pub const STEPS: usize = 4096;
/// Bytes that are copied or summed between two offers: some 0.2 ms at most.
pub const BYTES: usize = 1024 * 1024;

/// Lets others go first.
#[inline]
pub fn offer() {
    std::thread::yield_now();
}
