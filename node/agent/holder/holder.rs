//! Holds a pod's namespaces: it waits, reaps the children it inherits, and ends when told to.
//!
//! Compiled apart from the workspace, static and without dependencies, and run in an image that holds nothing else.

use std::ffi::c_int;

const SIGINT: c_int = 2;
const SIGTERM: c_int = 15;
const SIGCHLD: c_int = 17;
const WNOHANG: c_int = 1;

unsafe extern "C" {
    fn signal(number: c_int, handler: extern "C" fn(c_int)) -> usize;
    fn waitpid(process: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn pause() -> c_int;
    fn _exit(code: c_int) -> !;
}

extern "C" fn leave(_: c_int) {
    // SAFETY: `_exit` may be called in a signal handler.
    unsafe { _exit(0) }
}

extern "C" fn reap(_: c_int) {
    // SAFETY: `waitpid` may be called in a signal handler and takes no status.
    while unsafe { waitpid(-1, std::ptr::null_mut(), WNOHANG) } > 0 {}
}

fn main() {
    // SAFETY: the handlers call only what may be called in one; process 1 gets no signal it has no handler for.
    unsafe {
        signal(SIGINT, leave);
        signal(SIGTERM, leave);
        signal(SIGCHLD, reap);
        loop {
            pause();
        }
    }
}
