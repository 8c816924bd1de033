//! When the allocator gives memory back that nobody needs any more.
//!
//! It keeps freed pages for a second, in case they are needed again. Under load that is some 60 MiB, a fifth of all: batches come and go in less. After a
//! tenth of a second nearly all that would have been used again has been. After a hundredth, or at once, it is less memory still (250 instead of 270 MiB), and each
//! page is made anew so often that it costs a tenth of the throughput. `MIMALLOC_PURGE_DELAY`, in milliseconds, says otherwise.

use std::ffi::c_long;

use libmimalloc_sys::{mi_option_set_default, mi_option_t, mi_option_use_numa_nodes};

const DELAY_MS: c_long = 100;
/// mimalloc's `mi_option_purge_delay`, which the bindings do not name: in its `mi_option_e` it stands before the one about NUMA.
const PURGE_DELAY: mi_option_t = mi_option_use_numa_nodes - 1;

/// To be called first of all, while there is no other thread.
#[expect(unsafe_code, reason = "the allocator has no safe way to set an option")]
pub(crate) fn give_back_soon() {
    // SAFETY: the function takes two numbers and stores the second in a static table, at the first, which it checks against the table's length. It asks for no
    // other thread doing so at that time: there is none yet, and nothing else here sets options.
    unsafe { mi_option_set_default(PURGE_DELAY, DELAY_MS) }
}

#[cfg(test)]
mod tests {
    use libmimalloc_sys::mi_option_get;

    use super::*;

    #[test]
    #[expect(unsafe_code, reason = "the allocator has no safe way to read an option")]
    fn the_option_is_that_of_purging() {
        // SAFETY: it reads a number from a static table, at a place that it checks.
        let get = || unsafe { mi_option_get(PURGE_DELAY) };
        assert_eq!(get(), 1000, "mimalloc's own delay: another one has another number, or is not what it was");
        give_back_soon();
        assert_eq!(get(), DELAY_MS);
    }
}
