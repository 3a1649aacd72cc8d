//! A thread that lets others go first.

/// Makes this thread, and no other, ten steps nicer: on Linux each thread has its own nice value (nice(2), "C library/kernel
/// differences" of setpriority(2)).
///
/// It goes on at once where a processor is free. Where none is, whoever wakes up is not kept waiting for a slice of time.
pub fn step_back() {
    const STEPS: libc::c_int = 10;
    // SAFETY: the call takes a number and touches no memory of ours.
    unsafe { libc::nice(STEPS) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_thread_that_steps_back_is_nicer() {
        // SAFETY: both calls take numbers; zero steps change nothing.
        let nice = || unsafe { libc::nice(0) };
        let before = nice();
        let of_thread = std::thread::spawn(move || {
            step_back();
            nice()
        });
        assert_eq!((of_thread.join().unwrap(), nice()), ((before + 10).min(19), before));
    }
}
