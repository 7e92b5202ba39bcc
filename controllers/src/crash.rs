//! Points between two effects at which a test may have the process die: what it leaves must be a state that the next
//! process goes on from.
//!
//! A point costs a look at the environment and does nothing unless it is named there; in a release build it is nothing.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Environment variable that names the point at which the process is to die.
pub const VARIABLE: &str = "CORNJACKET_CRASH_AT";

/// Kills this very process, as SIGKILL does, if [`VARIABLE`] is `name`: no destructor runs, no connection says goodbye.
/// Only in builds with debug assertions.
pub fn point(name: &str) {
    if cfg!(debug_assertions) && std::env::var_os(VARIABLE).is_some_and(|at| at == name) {
        // Nobody but the kernel is left to hear of a failure, and the lines below are not reached otherwise.
        let _ = kill(Pid::this(), Signal::SIGKILL);
        unreachable!("a process that was killed goes on");
    }
}
