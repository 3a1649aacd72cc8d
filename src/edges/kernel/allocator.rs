//! The C library's allocator, told that threads are rare here.

/// Keeps one heap for all threads. Each that does blocking work would get its own, of 88 kB, and never give it back
/// (mallopt(3), M_ARENA_MAX). Called before there are any.
pub fn keep_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes two numbers, and no other thread exists yet that could be allocating.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}
