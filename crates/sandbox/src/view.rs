//! What is to be seen in a sandbox, as bubblewrap's arguments: the system's programs and libraries read-only, the workspace, and little else. What is not
//! named here does not exist inside: no home directories, no other tasks' workspaces, no data of the runner, no sockets.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::way_out;

/// Where the stage stands inside.
pub(crate) const STAGE: &str = "/.fte/stage";
/// Whom a program takes itself for.
const USER: u32 = 1000;
const TMP_BYTES: u64 = 64 << 20;

/// Programs and libraries. On most systems all but the first are links into it.
const SYSTEM: [&str; 9] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/run/current-system/sw"];
/// Of the configuration, what says how programs and libraries are found, whom to trust and which time it is.
const CONFIGURATION: [&str; 16] = [
    "alternatives",
    "ca-certificates",
    "ca-certificates.conf",
    "fonts",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "magic",
    "mime.types",
    "pki",
    "protocols",
    "services",
    "ssl",
    "terminfo",
    "timezone",
];
/// Files of ours in place of the machine's: who is there is nobody's business.
const OWN: [(&str, &str); 4] = [
    ("passwd", "agent:x:1000:1000:agent:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
    ("group", "agent:x:1000:\nnogroup:x:65534:\n"),
    ("hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
];

/// What a sandbox may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network<'a> {
    /// Only itself.
    None,
    /// What the runner lets it reach, who waits for the way out at this Unix socket.
    WayOut(&'a Path),
    /// All that this machine reaches, its own loopback services too.
    Host,
}

/// What all sandboxes of this machine see.
#[derive(Debug)]
pub(crate) struct View {
    arguments: Vec<OsString>,
    readable: Vec<PathBuf>,
    own: PathBuf,
}

impl View {
    /// Looks at this machine; keeps its own files in `directory`.
    pub(crate) fn new(directory: &Path, stage: &Path) -> io::Result<Self> {
        let own = directory.join("etc");
        fs::create_dir_all(&own)?;
        for (name, text) in OWN {
            fs::write(own.join(name), text)?;
        }
        let mut view = Self { arguments: Vec::new(), readable: Vec::new(), own };
        for path in SYSTEM.map(Path::new) {
            match fs::symlink_metadata(path) {
                Ok(metadata) if metadata.is_symlink() => view.add("--symlink", &[fs::read_link(path)?.as_os_str(), path.as_os_str()]),
                Ok(_) => view.show(path, path),
                Err(_) => {}
            }
        }
        for name in CONFIGURATION {
            let path = Path::new("/etc").join(name);
            if path.exists() {
                view.show(&path, &path);
            }
        }
        for (name, _) in OWN {
            view.show(&view.own.join(name), &Path::new("/etc").join(name));
        }
        view.show(stage, Path::new(STAGE));
        Ok(view)
    }

    fn add(&mut self, option: &str, values: &[&std::ffi::OsStr]) {
        self.arguments.push(option.into());
        self.arguments.extend(values.iter().map(Into::into));
    }

    fn show(&mut self, from: &Path, to: &Path) {
        self.add("--ro-bind", &[from.as_os_str(), to.as_os_str()]);
        self.readable.push(to.to_owned());
    }

    /// What programs may read: this, and what they are shown besides.
    pub(crate) fn readable(&self) -> &[PathBuf] {
        &self.readable
    }

    /// Whether a path is part of what every sandbox sees.
    pub(crate) fn shows(&self, path: &Path) -> bool {
        SYSTEM.iter().any(|system| path.starts_with(system))
    }

    /// All arguments but the command.
    pub(crate) fn arguments(&self, workspace: &Path, more: &[PathBuf], network: Network<'_>) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::with_capacity(self.arguments.len() + 64);
        let user = USER.to_string();
        let tmp = TMP_BYTES.to_string();
        let walls = ["--unshare-user", "--disable-userns", "--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try"];
        arguments.extend(walls.map(Into::into));
        if network != Network::Host {
            arguments.push("--unshare-net".into());
        }
        arguments.extend(["--uid", &user, "--gid", &user, "--cap-drop", "ALL", "--hostname", "sandbox"].map(Into::into));
        arguments.extend(["--proc", "/proc", "--dev", "/dev", "--size", &tmp, "--tmpfs", "/dev/shm"].map(Into::into));
        arguments.extend(["--size", &tmp, "--tmpfs", "/tmp"].map(Into::into));
        arguments.extend(self.arguments.iter().cloned());
        let bind = |arguments: &mut Vec<OsString>, option: &str, path: &Path| {
            arguments.extend([option.into(), path.into(), path.into()]);
        };
        if network == Network::Host {
            bind(&mut arguments, "--ro-bind-try", Path::new("/etc/resolv.conf"));
        }
        if let Network::WayOut(socket) = network {
            arguments.extend(["--ro-bind".into(), socket.into(), way_out::INSIDE.into()]);
        }
        for path in more {
            bind(&mut arguments, "--ro-bind", path);
        }
        bind(&mut arguments, "--bind", workspace);
        // Read-only, so that who is root outside changes no setting of the kernel; the root last, for until then things are put into it.
        arguments.extend(["--remount-ro", "/proc", "--remount-ro", "/dev", "--remount-ro", "/", "--chdir"].map(Into::into));
        arguments.push(workspace.into());
        arguments
    }
}
