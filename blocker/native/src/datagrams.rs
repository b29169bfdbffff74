//! Datagrams of a UDP socket, many in one call of the system (recvmmsg(2), sendmmsg(2)).
//!
//! A datagram of DNS costs less to answer than to fetch, so what one call of the system, and one turn of an event loop,
//! brings in decides how many there can be. Nothing here waits: what cannot be sent at once is lost, as any datagram may be.

use std::mem::{MaybeUninit, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::RawFd;

/// How many are taken at once.
pub const BATCH: usize = 64;
/// The longest that is taken whole: over twice the longest query that anybody sends.
pub const MAX_BYTES: usize = 4096;
/// Room for one control message that says at which address a datagram came (ip(7), ipv6(7)).
const CONTROL_BYTES: usize = 64;

/// Whom to answer, and from which address; readable by nobody else.
#[derive(Clone)]
pub struct Peer {
    address: libc::sockaddr_storage,
    length: libc::socklen_t,
    control: [u64; CONTROL_BYTES / 8],
    control_length: usize,
}

impl Peer {
    fn empty() -> Self {
        // SAFETY: all bytes of the structure may be zero.
        let address = unsafe { MaybeUninit::zeroed().assume_init() };
        Self { address, length: 0, control: [0; CONTROL_BYTES / 8], control_length: 0 }
    }

    /// The address.
    pub fn address(&self) -> IpAddr {
        let storage = &raw const self.address;
        if i32::from(self.address.ss_family) == libc::AF_INET6 {
            // SAFETY: the kernel wrote an address of this family, and the storage is large and aligned enough for each.
            let address = unsafe { (*storage.cast::<libc::sockaddr_in6>()).sin6_addr };
            IpAddr::V6(Ipv6Addr::from(address.s6_addr))
        } else {
            // SAFETY: as above.
            let address = unsafe { (*storage.cast::<libc::sockaddr_in>()).sin_addr };
            IpAddr::V4(Ipv4Addr::from(u32::from_be(address.s_addr)))
        }
    }

    /// Has the answer leave by whatever way leads to the peer, from the address that was asked.
    fn forget_interface(&mut self) {
        let mut header: libc::msghdr = empty_header();
        header.msg_control = self.control.as_mut_ptr().cast();
        header.msg_controllen = self.control_length as _;
        // SAFETY: the header names initialised memory of that length; CMSG_FIRSTHDR returns a message in it or null.
        unsafe {
            let message = libc::CMSG_FIRSTHDR(&raw const header);
            if !message.is_null()
                && (*message).cmsg_level == libc::IPPROTO_IP
                && (*message).cmsg_type == libc::IP_PKTINFO
            {
                // The interface's number is the first field (ip(7)).
                libc::CMSG_DATA(message).write_bytes(0, size_of::<libc::c_int>());
            }
        }
    }
}

fn empty_header() -> libc::msghdr {
    // SAFETY: all bytes of the structure may be zero: no address, no data, no control messages.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

/// Room for a batch, kept from one to the next.
pub struct Batch {
    peers: Vec<Peer>,
    data: Vec<u8>,
    lengths: Vec<usize>,
}

impl Default for Batch {
    fn default() -> Self {
        Self { peers: vec![Peer::empty(); BATCH], data: vec![0; BATCH * MAX_BYTES], lengths: Vec::with_capacity(BATCH) }
    }
}

impl Batch {
    /// Takes what has arrived, at most [`BATCH`] datagrams, and says how many.
    pub fn receive(&mut self, socket: RawFd) -> usize {
        self.lengths.clear();
        let mut vectors: [libc::iovec; BATCH] = std::array::from_fn(|at| libc::iovec {
            iov_base: self.data[at * MAX_BYTES..].as_mut_ptr().cast(),
            iov_len: MAX_BYTES,
        });
        let mut headers: [libc::mmsghdr; BATCH] = std::array::from_fn(|at| {
            let mut header = empty_header();
            let peer = &mut self.peers[at];
            header.msg_name = (&raw mut peer.address).cast();
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_iov = &raw mut vectors[at];
            header.msg_iovlen = 1;
            header.msg_control = peer.control.as_mut_ptr().cast();
            header.msg_controllen = CONTROL_BYTES as _;
            libc::mmsghdr { msg_hdr: header, msg_len: 0 }
        });
        // SAFETY: every header names memory of this batch, which outlives the call, with its length.
        let count = unsafe {
            libc::recvmmsg(socket, headers.as_mut_ptr(), BATCH as u32, libc::MSG_DONTWAIT, std::ptr::null_mut())
        };
        for (header, peer) in headers.iter().zip(&mut self.peers).take(usize::try_from(count).unwrap_or(0)) {
            self.lengths.push(header.msg_len as usize);
            peer.length = header.msg_hdr.msg_namelen;
            peer.control_length = header.msg_hdr.msg_controllen as _;
            peer.forget_interface();
        }
        self.lengths.len()
    }

    /// A datagram of the batch, and who sent it.
    pub fn get(&self, at: usize) -> (&[u8], &Peer) {
        (&self.data[at * MAX_BYTES..][..self.lengths[at]], &self.peers[at])
    }
}

/// Answers to be sent: `ends` are the ends of each in `data`. What cannot be sent is lost.
pub fn send(socket: RawFd, data: &[u8], answers: &[(usize, &Peer)]) {
    let mut start = 0;
    for answers in answers.chunks(BATCH) {
        let mut vectors = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; BATCH];
        for (vector, (end, _)) in vectors.iter_mut().zip(answers) {
            *vector = libc::iovec { iov_base: data[start..*end].as_ptr().cast_mut().cast(), iov_len: end - start };
            start = *end;
        }
        let mut headers: [libc::mmsghdr; BATCH] = std::array::from_fn(|at| {
            let mut header = empty_header();
            if let Some((_, peer)) = answers.get(at) {
                header.msg_name = (&raw const peer.address).cast_mut().cast();
                header.msg_namelen = peer.length;
                header.msg_iov = &raw mut vectors[at];
                header.msg_iovlen = 1;
                header.msg_control = peer.control.as_ptr().cast_mut().cast();
                header.msg_controllen = peer.control_length as _;
            }
            libc::mmsghdr { msg_hdr: header, msg_len: 0 }
        });
        let mut sent = 0;
        while sent < answers.len() {
            // SAFETY: the headers from `sent` on name memory that outlives the call; the kernel only reads it.
            let count = unsafe {
                libc::sendmmsg(socket, headers[sent..].as_mut_ptr(), (answers.len() - sent) as u32, libc::MSG_DONTWAIT)
            };
            match usize::try_from(count) {
                Ok(count) if count > 0 => sent += count,
                // Full: the rest would be as well. Anything else concerns the first of them alone.
                _ if std::io::Error::last_os_error().kind() == std::io::ErrorKind::WouldBlock => return,
                _ => sent += 1,
            }
        }
    }
}
