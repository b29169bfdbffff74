//! Long work in a process that answers meanwhile: it offers its processor to whoever waits for it, every few microseconds.
//!
//! A thread of lower priority still keeps a processor for its time slice, milliseconds, when the event loop wakes up on the
//! same one. Yielding needs no rights, costs half a microsecond when nobody waits, and starves nobody: on a busy machine
//! the work gets its share all the same.

/// Steps of a pass over nodes between two offers: about 30 µs.
pub const STEPS: usize = 512;
/// Bytes that are copied or summed between two offers: about 30 µs.
pub const BYTES: usize = 256 * 1024;

/// Lets others go first.
#[inline]
pub fn offer() {
    std::thread::yield_now();
}
