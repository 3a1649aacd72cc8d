//! The C library's allocator, told that little is wanted here, and that what is not wanted any more should go back.

/// Keeps one heap for all threads, and gives back what is freed (mallopt(3)). Each thread that does blocking work would
/// get a heap of its own, of 88 kB, for ever. Called before there are any.
pub fn keep_little() {
    const MUCH: libc::c_int = 32 * 1024;
    #[cfg(target_env = "gnu")]
    // SAFETY: the calls take two numbers each, and no other thread exists yet that could be allocating.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MUCH);
        libc::mallopt(libc::M_TRIM_THRESHOLD, MUCH);
    }
}

/// Gives back what lies free between what is used (malloc_trim(3)).
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes a number, locks the heap as every allocation does, and moves nothing that is used.
    unsafe {
        libc::malloc_trim(0);
    }
}
