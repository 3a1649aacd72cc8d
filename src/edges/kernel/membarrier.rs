//! membarrier(2): wait until no processor still runs with what was true before.

/// MEMBARRIER_CMD_GLOBAL of `<linux/membarrier.h>`.
const GLOBAL: libc::c_int = 1;

/// Returns when every packet that was being given a socket by an older steering program has been given it.
///
/// The kernel runs such programs under RCU, and this command waits for a grace period (`synchronize_rcu` in
/// kernel/sched/membarrier.c). Blocks for 10 to 50 ms, so it belongs on a thread of its own. A kernel without it
/// leaves nothing to wait with, and the polls that follow take longer than a packet does.
pub fn wait_for_packets_under_way() {
    // SAFETY: the call takes three numbers and touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
}
