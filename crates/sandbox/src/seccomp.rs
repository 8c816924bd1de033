//! The wall around the kernel: calls that no agent needs and from which escapes were made.
//!
//! A list of what is denied, as Flatpak has one, not of what is allowed: agents are programs of every kind, and a runtime that meets an unexpected refusal
//! fails in ways that nobody understands. The first wall stands without it.
//!
//! Calls by the numbers of another architecture (32 bit, x32) are denied altogether: a list by number could be passed by them.

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Width, SeccompCmpOp as Op, SeccompCondition as Condition, SeccompFilter, SeccompRule,
    sock_filter,
};

/// Why the wall does not stand.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The filter is wrong, or this architecture is not known.
    #[error("seccomp: the filter could not be made: {0}")]
    Filter(#[from] seccompiler::BackendError),
    /// The kernel refused it.
    #[error("seccomp: {0}")]
    Refused(#[from] seccompiler::Error),
}

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
const EAFNOSUPPORT: u32 = 97;

/// Denied as not permitted.
const DENIED: &[i64] = &[
    // Mounts, roots and namespaces: the first wall is made of them.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    libc::SYS_unshare,
    // The machine.
    libc::SYS_reboot,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
    libc::SYS_nfsservctl,
    libc::SYS_lookup_dcookie,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_uselib,
    // Keys belong to users, not to namespaces.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // Where most ways into the kernel were found.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_fanotify_init,
    libc::SYS_open_by_handle_at,
];

/// Said not to exist, so that callers take the older way.
const ABSENT: &[i64] = &[
    // Its flags stand in memory, where a filter cannot look.
    libc::SYS_clone3,
    // Calls made through a ring pass no filter.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
];

/// Puts words into the input of a console, among other things; the kernel has it in `tty_ioctl.h`.
const TIOCLINUX: u64 = 0x541c;

/// Kinds of sockets that may be made. Of others (vsock reaches the host of a virtual machine) no namespace is aware.
const FAMILIES: &[i32] = &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// Binds this thread and all it will start. Nothing is gained any more by starting a program with more rights (`no_new_privs`).
pub(crate) fn bind() -> Result<(), Error> {
    for program in programs()? {
        seccompiler::apply_filter(&program)?;
    }
    Ok(())
}

fn programs() -> Result<Vec<BpfProgram>, seccompiler::BackendError> {
    let arch = std::env::consts::ARCH.try_into()?;
    let filter = |rules: Vec<(i64, Vec<SeccompRule>)>, errno| {
        let filter = SeccompFilter::new(rules.into_iter().collect(), SeccompAction::Allow, SeccompAction::Errno(errno), arch)?;
        BpfProgram::try_from(filter)
    };
    let always = |calls: &[i64]| calls.iter().map(|call| (*call, Vec::new())).collect::<Vec<_>>();
    let mut denied = always(DENIED);
    denied.push((libc::SYS_clone, vec![SeccompRule::new(vec![masked(0, libc::CLONE_NEWUSER)?])?]));
    // Words put into the input of a terminal are run by whoever reads there next.
    denied.push((libc::SYS_ioctl, vec![SeccompRule::new(vec![is(1, libc::TIOCSTI)?])?, SeccompRule::new(vec![is(1, TIOCLINUX)?])?]));
    let other_families = FAMILIES.iter().map(|family| Condition::new(0, Width::Dword, Op::Ne, u64::from(family.unsigned_abs())));
    let sockets = SeccompRule::new(other_families.collect::<Result<_, _>>()?)?;
    let mut programs = vec![
        filter(denied, EPERM)?,
        filter(always(ABSENT), ENOSYS)?,
        filter(vec![(libc::SYS_socket, vec![sockets.clone()]), (libc::SYS_socketpair, vec![sockets])], EAFNOSUPPORT)?,
    ];
    if cfg!(target_arch = "x86_64") {
        programs.push(no_x32());
    }
    Ok(programs)
}

fn is(argument: u8, value: u64) -> Result<Condition, seccompiler::BackendError> {
    Condition::new(argument, Width::Dword, Op::Eq, value)
}

fn masked(argument: u8, flag: i32) -> Result<Condition, seccompiler::BackendError> {
    let flag = u64::from(flag.unsigned_abs());
    Condition::new(argument, Width::Qword, Op::MaskedEq(flag), flag)
}

/// Denies the numbers of x32, which carry a bit that no number of 64 bit has.
fn no_x32() -> BpfProgram {
    const LOAD_NUMBER: u16 = 0x20;
    const JUMP_IF_AT_LEAST: u16 = 0x35;
    const RETURN: u16 = 0x06;
    const X32: u32 = 0x4000_0000;
    const ALLOW: u32 = 0x7fff_0000;
    const ERRNO: u32 = 0x0005_0000;
    vec![
        sock_filter { code: LOAD_NUMBER, jt: 0, jf: 0, k: 0 },
        sock_filter { code: JUMP_IF_AT_LEAST, jt: 0, jf: 1, k: X32 },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: ERRNO | ENOSYS },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: ALLOW },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filters_can_be_made_for_this_architecture() {
        let programs = programs().unwrap();
        assert!(programs.iter().all(|program| !program.is_empty() && program.len() < 4096));
    }
}
