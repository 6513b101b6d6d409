//! What the system's allocator is told at the start, so that memory goes back to the system.
//!
//! By itself glibc raises, with every large block that is freed, the size from which on blocks get pages
//! of their own, up to 32 MiB; large bodies and batches then come out of its arenas, of which there are
//! eight a core, and stay there: 256 MiB of requests in flight left several hundred MiB resident, idle
//! as well (`bench/record/`). With a fixed size each large buffer has its own pages, which are the
//! system's again when it is freed; growing one moves no bytes, since the kernel moves its pages.

#![allow(unsafe_code, reason = "mallopt is a function of the C library")]

/// Blocks from this size on have pages of their own. Smaller: a system call for more of them; larger:
/// more may stay in the arenas.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const OWN_PAGES_BYTES: i32 = 256 << 10;

/// Tells the allocator. Has to come before threads are started.
pub fn settle() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `mallopt` changes numbers inside the allocator, which no other thread uses yet.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, OWN_PAGES_BYTES);
    }
}
