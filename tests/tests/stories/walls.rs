//! Agents that try to get out of their sandbox, through the whole program: what is outside stays unread, unchanged and unharmed, and what they start dies with them.

use std::fs;
use std::path::{Path, PathBuf};

use fte_testkit::{Client, Dir, FteProcess, PATIENCE, built_binary, eventually};
use fte_tests::tasks::{look, post, result, told};
use serde_json::{Value, json};

/// Nobody inside ever sees this word. (It is put together where it is looked for, so that the search does not find itself.)
const SECRET: &str = "canary-4d1f";
/// What fits and what does not is told by these.
const AGENTS: &str = r#"
    default = "sh"
    [agents.sh]
    kind = "command"
    command = ["sh"]
    [agents.python]
    kind = "command"
    command = ["python3", "-"]
    [agents.small]
    kind = "command"
    command = ["python3", "-"]
    attempts = 1
    memory = "96MiB"
    processes = 24
    file_size = "8MiB"
    disk = "24MiB"
    open_files = 32
    [agents.open]
    kind = "command"
    command = ["python3", "-"]
    network = "host"
    [agents.reader]
    kind = "command"
    command = ["sh"]
    read = ["shown"]
    [agents.plain]
    kind = "command"
    command = ["sh"]
    sandbox = "none"
    [agents.speaker]
    kind = "process"
    command = ["python3", "speaker.py"]
"#;

/// An FTE, and things beside it that agents should not get at.
struct Prison {
    process: FteProcess,
    dir: Dir,
}

impl Prison {
    async fn start() -> Self {
        Self::start_under(&[]).await
    }

    async fn start_under(launcher: &[&str]) -> Self {
        Self::start_with(launcher, "").await
    }

    async fn start_with(launcher: &[&str], more: &str) -> Self {
        let dir = Dir::new();
        let agents = dir.write("agents.toml", format!("{AGENTS}{more}"));
        dir.write("speaker.py", include_str!("walls/speaker.py"));
        dir.write("beside.txt", SECRET);
        fs::create_dir(dir.join("shown")).unwrap();
        dir.write("shown/text.txt", "to be read");
        fs::create_dir(dir.join("data")).unwrap();
        dir.write("data/secret.txt", SECRET);
        let args = ["--agents", agents.to_str().unwrap()];
        let env = [("A_SECRET", SECRET), ("FTE_LOG", "info")];
        let process = FteProcess::start_under(launcher.iter().copied(), built_binary(), dir.join("data"), args, env).await;
        Self { process, dir }
    }

    fn api(&self) -> Client {
        self.process.api()
    }

    /// How the task ends: the data of its result event.
    async fn end(&self, agent: &str, script: &str) -> Value {
        let task = post(&self.api(), json!({ "task": script, "agent": agent })).await;
        result(&self.api(), &task).await
    }

    /// What a script writes that must succeed.
    async fn run(&self, agent: &str, script: &str) -> Value {
        let end = self.end(agent, script).await;
        assert_eq!(end["status"], "completed", "{end}");
        end["result"].clone()
    }

    async fn says(&self, agent: &str, script: &str) -> String {
        let said = self.run(agent, script).await;
        said.as_str().map_or_else(|| said.to_string(), str::to_owned)
    }

    /// Whether all of a sandbox's processes are bounded together here.
    fn holds_together(&self) -> bool {
        let holds = self.process.log().contains("control groups");
        if !holds {
            println!("NOTICE: no control groups can be made here; limits of all processes together are not tested");
        }
        holds
    }
}

/// The processes of this machine whose command line holds this word.
fn processes_with(word: &str) -> Vec<PathBuf> {
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    processes.filter(|process| fs::read(process.join("cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(word))).collect()
}

#[tokio::test]
async fn nothing_outside_is_read() {
    let prison = Prison::start().await;
    let script = r#"
import os
word = ("canary-" + "4d1f").encode()
found, looked, processes = [], 0, 0
def look(path):
    global looked
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return
    try:
        if word in os.read(fd, 1 << 16):
            found.append(path)
        looked += 1
    except OSError:
        pass
    finally:
        os.close(fd)
for base, dirs, files in os.walk("/"):
    if base == "/":
        dirs[:] = [d for d in dirs if d not in ("usr", "proc", "dev")]
    for name in files:
        look(os.path.join(base, name))
for pid in filter(str.isdigit, os.listdir("/proc")):
    processes += 1
    for name in ("environ", "cmdline", "mountinfo", "maps"):
        look(f"/proc/{pid}/{name}")
    for link in ("root", "cwd"):
        try:
            for base, dirs, files in os.walk(os.path.realpath(f"/proc/{pid}/{link}")):
                if base.count("/") > 3 or base.startswith(("/usr", "/proc", "/dev")):
                    dirs[:] = []
                for name in files:
                    look(os.path.join(base, name))
        except OSError:
            pass
import json
print(json.dumps({"found": found, "looked": looked, "processes": processes}))
"#;
    let seen = prison.run("python", script).await;
    assert_eq!(seen["found"], json!([]), "{seen}");
    // It did look, and saw none but its own and the namespace's first.
    assert!(seen["looked"].as_u64().unwrap() > 20 && seen["processes"].as_u64().unwrap() <= 3, "{seen}");

    let beside = prison.dir.join("beside.txt");
    let ways = format!(
        "cat {beside} {data}/secret.txt /etc/shadow /proc/1/root{beside} ../../../../../../../../../{beside} 2>/dev/null; ls {dir} {data} 2>/dev/null; ls /root /home /var /run /sys 2>/dev/null; echo end",
        beside = beside.display(),
        data = prison.dir.join("data").display(),
        dir = prison.dir.join("").display(),
    );
    let said = prison.says("sh", &ways).await;
    let names: Vec<_> = said.lines().filter(|line| !line.is_empty() && !line.ends_with(':')).collect();
    // Of the data directory there is the way to the workspace.
    assert_eq!(names, ["data", "workspaces", "end"], "{said}");

    // A process like any other sees it: the places are right.
    assert!(prison.says("plain", &format!("cat {}", beside.display())).await.contains(SECRET));
    // What it is shown, it sees, and cannot change.
    let shown = prison.dir.join("shown");
    let said = prison.says("reader", &format!("cd {0} && cat text.txt && ! touch new 2>/dev/null && ls", shown.display())).await;
    assert_eq!(said, "to be readtext.txt");
}

#[tokio::test]
async fn nothing_outside_is_changed() {
    let prison = Prison::start().await;
    let core_pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let script = format!(
        r#"
for file in ../x ../../x {dir}/x {data}/x; do echo x 2>/dev/null > $file; done
for file in /usr/x /etc/x /x /dev/x /bin/x /.fte/x /proc/sys/kernel/core_pattern /proc/sys/kernel/hostname /proc/sysrq-trigger; do
    if echo x 2>/dev/null > $file; then echo wrote $file; fi
done
mount -t tmpfs none /mnt 2>/dev/null && echo mounted
umount /proc 2>/dev/null && echo unmounted
unshare -U true 2>/dev/null && echo unshared
chroot . true 2>/dev/null && echo rooted
for file in own /tmp/own /dev/shm/own; do echo x > $file || echo "cannot write $file"; done
echo end"#,
        dir = prison.dir.join("").display(),
        data = prison.dir.join("data").display(),
    );
    assert_eq!(prison.says("sh", &script).await, "end");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), core_pattern);
    // The way to the workspace is seen, and is none of the real directories.
    for place in ["", "data", "data/workspaces"] {
        assert!(!prison.dir.join(place).join("x").exists());
    }
}

#[tokio::test]
async fn there_is_no_network_and_no_dangerous_call() {
    let prison = Prison::start().await;
    let port = |url: &str| url.rsplit(':').next().unwrap().parse::<u16>().unwrap();
    let ports = [port(&prison.process.ready().api), port(&prison.process.ready().sidecar)];
    let script = format!(
        r#"
import ctypes, errno, fcntl, json, os, socket
libc = ctypes.CDLL(None, use_errno=True)
told = {{}}
def way(name, attempt):
    try:
        attempt()
        told[name] = "open"
    except OSError as error:
        told[name] = errno.errorcode.get(error.errno, str(error))
def call(*arguments):
    if libc.syscall(*arguments) < 0:
        raise OSError(ctypes.get_errno(), "refused")
for port in {ports:?}:
    way("tcp", lambda: socket.create_connection(("127.0.0.1", port), 2))
way("udp", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.1", 53)))
way("vsock", lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM))
way("packet", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
way("sti", lambda: fcntl.ioctl(0, 0x5412, b"x"))
if os.uname().machine == "x86_64":
    way("io_uring", lambda: call(425, 1, None))
    way("keyctl", lambda: call(250, 0, 0, 0))
    way("bpf", lambda: call(321, 0, None, 0))
    way("perf", lambda: call(298, None, 0, -1, -1, 0))
    way("userns", lambda: call(272, 0x10000000))
    way("x32", lambda: call(0x40000000 | 39))
    way("getpid", lambda: call(39))
print(json.dumps(told))
"#
    );
    let told = prison.run("python", &script).await;
    let mut expected =
        json!({"tcp": "ECONNREFUSED", "udp": "ENETUNREACH", "vsock": "EAFNOSUPPORT", "packet": "EAFNOSUPPORT", "sti": "EPERM"});
    if std::env::consts::ARCH == "x86_64" {
        for (name, errno) in [
            ("io_uring", "ENOSYS"),
            ("keyctl", "EPERM"),
            ("bpf", "EPERM"),
            ("perf", "EPERM"),
            ("userns", "EPERM"),
            ("x32", "ENOSYS"),
            ("getpid", "open"),
        ] {
            expected[name] = json!(errno);
        }
    }
    assert_eq!(told, expected);
    // With the machine's own network it does get there.
    let connect = format!("import socket\nsocket.create_connection(('127.0.0.1', {}), 5)\nprint('there')", ports[0]);
    assert_eq!(prison.says("open", &connect).await, "there");
}

#[tokio::test]
async fn a_bomb_of_processes_memory_or_files_harms_only_itself() {
    let prison = Prison::start().await;
    let forks = r"
import os, time
made = 0
try:
    while made < 1000:
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        made += 1
except OSError:
    pass
print(made)";
    let made = prison.run("small", forks).await.as_str().unwrap().parse::<u32>().unwrap();
    assert!((4..24).contains(&made), "{made}");

    let much = "block = bytearray(1 << 30)\nprint(len(block))";
    let end = prison.end("small", much).await;
    assert_eq!(end["status"], "failed", "{end}");
    let many = r"
import os, time
for _ in range(8):
    if os.fork() == 0:
        block = bytearray(40 << 20)
        for at in range(0, len(block), 4096):
            block[at] = 1
        time.sleep(60)
        os._exit(0)
time.sleep(20)
while True:
    os.wait()";
    if prison.holds_together() {
        let script = many.replace(
            "time.sleep(20)\nwhile True:\n    os.wait()",
            "import signal, sys\n_, status = os.wait()\nsys.exit(0 if os.WIFSIGNALED(status) else 1)",
        );
        let end = prison.end("small", &script).await;
        // One of them was killed, and the whole is told why if it did not go well.
        assert!(end["status"] == "completed" || end["error"]["code"] == "memory_exceeded", "{end}");
    }

    let large = "import signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nwith open('large', 'wb') as file:\n    while True:\n        file.write(bytes(1 << 20))";
    let end = prison.end("small", large).await;
    assert!(end["error"]["message"].as_str().unwrap().contains("File too large"), "{end}");
    let full = "number = 0\nwhile True:\n    number += 1\n    with open(str(number), 'wb') as file:\n        file.write(bytes(1 << 20))\n    import time; time.sleep(0.02)";
    assert_eq!(prison.end("small", full).await["error"]["code"], "disk_exceeded");
    let empty = "import time\nnumber = 0\nwhile True:\n    number += 1\n    open(str(number), 'w').close()\n    if number % 1000 == 0: time.sleep(0.02)";
    assert_eq!(prison.end("small", empty).await["error"]["code"], "disk_exceeded");
    let elsewhere = r"
import errno
for place in ('/tmp', '/dev/shm'):
    try:
        for number in range(1000):
            with open(f'{place}/{number}', 'wb') as file:
                file.write(bytes(1 << 20))
        print('all', place)
    except OSError as error:
        print(errno.errorcode[error.errno], place)";
    assert_eq!(prison.says("python", elsewhere).await, "ENOSPC /tmp\nENOSPC /dev/shm");
    let files = "kept = []\ntry:\n    while len(kept) < 100:\n        kept.append(open('/dev/null'))\nexcept OSError as error:\n    import errno; print(errno.errorcode[error.errno])";
    assert_eq!(prison.says("small", files).await, "EMFILE");

    // After all of it the next one finds its house in order.
    assert_eq!(prison.says("small", "print('well')").await, "well");
    assert_eq!(prison.says("sh", "ls -A | grep -v context.json; echo well").await, "well");
}

#[tokio::test]
async fn signals_stay_inside_and_what_was_started_dies_with_its_task() {
    let prison = Prison::start().await;
    let killer = format!(
        "kill -9 {} 2>/dev/null && echo killed; kill -9 1 2>/dev/null; kill -TERM -1 2>/dev/null; trap '' TERM; kill -TERM -1; echo alive",
        prison.process.ready().pid
    );
    assert_eq!(prison.says("sh", &killer).await, "alive");
    prison.api().get("/health").await.unwrap().expect_status(200);

    // Daemons, which leave group, session and parent.
    let word = format!("7{}", prison.process.ready().pid);
    let daemon = format!(
        "setsid sh -c 'setsid sleep {word} & sleep {word}' >/dev/null 2>&1 & setsid sleep {word} >/dev/null 2>&1 & sleep 0.1; echo left"
    );
    assert_eq!(prison.says("sh", &daemon).await, "left");
    eventually(|| async { none_left(&word) }).await;

    // One that is called off while it works.
    let task = post(
        &prison.api(),
        json!({ "task": format!("setsid sleep {word} & trap '' TERM; while :; do sleep {word}; done"), "agent": "sh" }),
    )
    .await;
    eventually(|| async { if processes_with(&word).len() >= 2 { Ok(()) } else { Err("not started".to_owned()) } }).await;
    prison.api().post(&format!("/v1/tasks/{task}/cancel"), &json!({})).await.unwrap().expect_status(202);
    assert_eq!(result(&prison.api(), &task).await["status"], "cancelled");
    eventually(|| async { none_left(&word) }).await;
}

fn none_left(word: &str) -> Result<(), String> {
    let left = processes_with(word);
    if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
}

#[tokio::test]
async fn a_killed_runner_takes_its_sandboxes_with_it() {
    let mut prison = Prison::start().await;
    let word = format!("8{}", prison.process.ready().pid);
    for _ in 0..3 {
        post(&prison.api(), json!({ "task": format!("setsid sleep {word} & setsid sh -c 'sleep {word}' & sleep {word}"), "agent": "sh" }))
            .await;
    }
    eventually(|| async { if processes_with(&word).len() >= 9 { Ok(()) } else { Err("not started".to_owned()) } }).await;
    prison.process.kill().await;
    eventually(|| async { none_left(&word) }).await;
}

#[tokio::test]
async fn output_is_bounded_and_files_leave_only_from_the_workspace() {
    let prison = Prison::start().await;
    let code = |end: &Value| end["error"]["code"].as_str().unwrap_or_default().to_owned();
    assert_eq!(code(&prison.end("sh", "yes").await), "result_too_large");
    assert_eq!(code(&prison.end("sh", "yes >&2").await), "output_too_large");
    // As the speaker's script: what it says is of the protocol.
    assert_eq!(code(&prison.end("speaker", "while True: sys.stdout.write('x' * 65536)").await), "line_too_long");
    let artifact = |path: &str| {
        format!(
            "import os\nos.symlink('/etc/passwd', 'link')\nos.symlink('/', 'root')\nsay(type='artifact', path={path:?})\nsay(type='result', result=1)"
        )
    };
    for path in ["link", "root/etc/passwd", "../../../agents.toml", "/etc/passwd", "/proc/self/environ"] {
        let end = prison.end("speaker", &artifact(path)).await;
        assert!(["artifact_refused", "artifact_missing"].contains(&code(&end).as_str()), "{path}: {end}");
    }
    let end = prison.end("speaker", "open('good', 'w').write('text')\nsay(type='artifact', path='good')\nsay(type='artifact', path=os.path.abspath('good'), name='again')\nsay(type='result', result=1)").await;
    assert_eq!((&end["status"], end["artifacts"].as_array().unwrap().len()), (&json!("completed"), 2), "{end}");
}

#[tokio::test]
async fn who_is_asked_to_leave_hears_of_it_inside() {
    let prison = Prison::start().await;
    let script = "import signal, time\nsignal.signal(signal.SIGTERM, lambda *_: (say(type='log', message='asked to leave'), sys.exit(0)))\nsay(type='stage', name='deaf')\nwhile True: time.sleep(60)";
    let task = post(&prison.api(), json!({ "task": script, "agent": "speaker" })).await;
    told(&prison.api(), &task, |event| event.to_string().contains("deaf")).await;
    prison.api().post(&format!("/v1/tasks/{task}/cancel"), &json!({})).await.unwrap().expect_status(202);
    assert_eq!(result(&prison.api(), &task).await["status"], "cancelled");
    told(&prison.api(), &task, |event| event.to_string().contains("asked to leave")).await;
}

/// As a user of its own, without the powers of root: who may not make control groups is bounded process by process.
#[tokio::test]
async fn it_holds_for_an_ordinary_user_too() {
    // Its directory, and that of the file in which it says that it is ready.
    let script = r#"for last in "$@"; do :; done
        chown -R 12345:12345 "$(dirname "$4")" "$(dirname "$last")" && exec setpriv --reuid=12345 --regid=12345 --clear-groups -- "$@""#;
    let launcher = ["sh", "-c", script, "as-user"];
    let prison = Prison::start_under(if rustix::process::getuid().is_root() { &launcher } else { &[] }).await;
    let forks = "import os, time\nmade = 0\ntry:\n    while made < 1000:\n        if os.fork() == 0:\n            time.sleep(60)\n        made += 1\nexcept OSError:\n    pass\nprint(made)";
    let made = prison.run("small", forks).await.as_str().unwrap().parse::<u32>().unwrap();
    assert!((4..24).contains(&made), "{made}");
    assert_eq!(prison.says("sh", &format!("cat {} 2>/dev/null; id -u", prison.dir.join("beside.txt").display())).await, "1000");
    let end = prison.end("small", "block = bytearray(1 << 30)\nprint(len(block))").await;
    assert!(end["error"]["message"].as_str().unwrap().contains("MemoryError"), "{end}");
}

#[tokio::test]
async fn the_examples_work_behind_walls() {
    let agents = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/agents/agents.toml");
    let dir = Dir::new();
    let args = ["--agents", agents.to_str().unwrap()];
    let fte = FteProcess::start_with(built_binary(), dir.join("data"), args, [] as [(&str, &str); 0]).await;
    for (agent, text, expected) in [
        ("measurer", "hello", json!({"measured": "hello", "bytes": 17})),
        ("counter", "to be or not to be", json!({"words": 6, "different": 4})),
        ("shouter", "hello", json!("HELLO")),
        ("printer", "--help", json!("--help!")),
    ] {
        let task = post(&fte.api(), json!({ "task": text, "agent": agent })).await;
        let end = result(&fte.api(), &task).await;
        assert_eq!(end["result"], expected, "{end}");
    }
}

#[tokio::test]
async fn secrets_are_given_by_name_and_repeated_nowhere() {
    let dir = Dir::new();
    let secrets = dir.write("secrets.json", json!({ "API_KEY": SECRET, "db": { "password": "swordfish" } }).to_string());
    let agents = dir.write(
        "agents.toml",
        r#"
        default = "trusted"
        [agents.trusted]
        kind = "command"
        command = ["sh"]
        attempts = 1
        secrets = ["API_KEY", "PASSWORD=db/password"]
        [agents.other]
        kind = "command"
        command = ["sh"]
        [agents.mistaken]
        kind = "command"
        command = ["sh"]
        attempts = 1
        secrets = ["PASSWORD=db/nothing"]
        [agents.liner]
        kind = "process"
        command = ["sh", "-c", 'echo "{\"type\":\"log\",\"level\":\"debug\",\"message\":\"with $API_KEY\"}"; echo "and $API_KEY"; sleep 60']
        attempts = 1
        secrets = ["API_KEY"]
        [agents.client]
        kind = "acp"
        command = ["sh", "-c", 'echo "welcome, $API_KEY"; sleep 60']
        attempts = 1
        secrets = ["API_KEY"]
    "#,
    );
    let args = ["--agents", agents.to_str().unwrap(), "--secrets", secrets.to_str().unwrap()];
    let fte = FteProcess::start_with(built_binary(), dir.join("data"), args, [("FTE_LOG", "debug")]).await;
    let end = |agent: &'static str, script: &'static str| {
        let api = fte.api();
        async move { result(&api, &post(&api, json!({ "task": script, "agent": agent })).await).await }
    };
    let given = end("trusted", "[ ${#API_KEY} = 11 ] && [ ${#PASSWORD} = 9 ] && echo given").await;
    assert_eq!(given["result"], "given", "{given}");
    // What it complains of with the secret in it is passed on without.
    let failed = end("trusted", r#"echo "no entry with $API_KEY" >&2; exit 3"#).await;
    assert!(failed["error"]["message"].as_str().unwrap().ends_with("no entry with ***"), "{failed}");
    // Likewise what stands where a message should.
    for agent in ["liner", "client"] {
        let failed = end(agent, "any").await;
        assert_eq!(failed["error"]["code"], "bad_message", "{failed}");
        assert!(failed["error"]["message"].as_str().unwrap().ends_with("***"), "{failed}");
    }
    let without = end("other", r#"echo "<$API_KEY$PASSWORD>""#).await;
    assert_eq!(without["result"], "<>", "{without}");
    let mistaken = end("mistaken", "true").await;
    assert!(mistaken["error"]["message"].as_str().unwrap().contains("no value by the key nothing"), "{mistaken}");
    let log = fte.log();
    assert!(log.contains("with ***"), "what it logs is logged");
    assert!(!log.contains(SECRET) && !log.contains("swordfish"));
    for file in walk(fte.data()) {
        let bytes = fs::read(&file).unwrap_or_default();
        let holds = |word: &str| bytes.windows(word.len()).any(|window| window == word.as_bytes());
        assert!(!holds(SECRET) && !holds("swordfish"), "{}", file.display());
    }
}

fn walk(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.flat_map(|entry| if entry.path().is_dir() { walk(&entry.path()) } else { vec![entry.path()] }).collect()
}

#[tokio::test]
async fn warm_programs_serve_one_task_each_and_are_replaced() {
    let agents = r#"
    [agents.ready]
    kind = "process"
    command = ["python3", "speaker.py"]
    min_warm = 2
    max = 3
"#;
    let mut prison = Prison::start_with(&[], agents).await;
    let waiting = || {
        let place = prison.process.data().join("workspaces/ahead");
        async move {
            let waiting = fs::read_dir(place).map_or(0, Iterator::count);
            if waiting == 2 { Ok(()) } else { Err(waiting) }
        }
    };
    let program = format!("{}/speaker.py", prison.dir.display());
    let is_python = |process: &PathBuf| fs::read_to_string(process.join("comm")).is_ok_and(|name| name.starts_with("python"));
    eventually(|| async {
        // Loaded, and not on the way there.
        let loaded = processes_with(&program).iter().filter(|process| is_python(process)).count();
        if loaded == 2 { Ok(()) } else { Err(loaded) }
    })
    .await;
    let mut seen = Vec::new();
    for number in 0..6 {
        // Two wait again, however often one is taken.
        eventually(waiting).await;
        let script = "say(type='result', result=[os.getcwd(), sorted(os.listdir('.'))])\nopen('left', 'w').write('x')".to_owned();
        let script = if number == 3 { format!("{script}\nos.kill(os.getpid(), 9)") } else { script };
        let task = post(&prison.api(), json!({ "task": script, "agent": "ready" })).await;
        let end = result(&prison.api(), &task).await;
        assert_eq!((&end["status"], &end["result"][1]), (&json!("completed"), &json!([])), "{end}");
        seen.push(end["result"][0].as_str().unwrap().to_owned());
        let claimed = told(&prison.api(), &task, |event| event["type"] == "fte.sandbox.claimed").await;
        assert_eq!(claimed["data"]["warm"], true, "{claimed}");
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 6, "{seen:?}");
    // One that died while it waited is no answer to a task.
    eventually(waiting).await;
    for process in processes_with(&program) {
        let id = process.file_name().unwrap().to_str().unwrap().parse().unwrap();
        let _ = rustix::process::kill_process(rustix::process::Pid::from_raw(id).unwrap(), rustix::process::Signal::KILL);
    }
    assert_eq!(prison.run("ready", "say(type='result', result='well')").await, "well");
    // More at once than wait.
    let tasks: Vec<_> = futures_util::future::join_all((0..9).map(|number| {
        prison.run(
            "ready",
            if number % 2 == 0 { "say(type='result', result=1)" } else { "import time; time.sleep(0.2); say(type='result', result=1)" },
        )
    }))
    .await;
    assert_eq!(tasks, vec![json!(1); 9]);
    prison.process.kill().await;
    eventually(|| async { none_left(&program) }).await;
}

/// A server on this machine that says the same to everybody.
async fn greeter() -> u16 {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = [0; 4096];
                let read = stream.read(&mut head).await.unwrap_or(0);
                let asked = String::from_utf8_lossy(&head[..read]).lines().next().unwrap_or_default().to_owned();
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{asked}", asked.len());
                drop(stream.write_all(answer.as_bytes()).await);
            });
        }
    });
    port
}

#[tokio::test]
async fn the_way_out_leads_to_listed_hosts_only() {
    let (listed, other) = (greeter().await, greeter().await);
    let more = format!(
        r#"
    [agents.listed]
    kind = "command"
    command = ["python3", "-"]
    network = ["localhost:{listed}"]
    [agents.public]
    kind = "command"
    command = ["python3", "-"]
    network = true
    [agents.pattern]
    kind = "command"
    command = ["python3", "-"]
    network = ["*:{listed}"]
"#
    );
    let prison = Prison::start_with(&[], &more).await;
    let script = |port: u16| {
        format!(
            r#"
import http.client, json, socket, urllib.error, urllib.request
told = {{}}
def way(name, attempt):
    try:
        told[name] = attempt()
    except urllib.error.HTTPError as error:
        told[name] = error.code
    except OSError as error:
        told[name] = str(error)
def tunnel():
    connection = http.client.HTTPConnection("127.0.0.1", 3128, timeout=20)
    connection.set_tunnel("localhost", {port})
    connection.request("GET", "/through")
    return connection.getresponse().read().decode()
way("url", lambda: urllib.request.urlopen(urllib.request.Request("http://localhost:{port}/whole?x=1"), timeout=20).read().decode())
way("tunnel", tunnel)
way("past it", lambda: socket.create_connection(("127.0.0.1", {port}), 5) and "open")
print(json.dumps(told))
"#
        )
    };
    let past = "[Errno 111] Connection refused";
    let told = prison.run("listed", &script(listed)).await;
    assert_eq!(told, json!({"url": "GET /whole?x=1 HTTP/1.1", "tunnel": "GET /through HTTP/1.1", "past it": past}));
    let proxied = script(listed).replace("import http", "import os\nos.environ['NO_PROXY'] = os.environ['no_proxy'] = ''\nimport http");
    for (agent, script) in [("listed", script(other)), ("public", proxied.clone()), ("pattern", proxied)] {
        let task = post(&prison.api(), json!({ "task": script, "agent": agent })).await;
        let end = result(&prison.api(), &task).await;
        assert_eq!(end["result"]["url"], 403, "{agent}: {end}");
        assert!(end["result"]["tunnel"].as_str().unwrap().contains("403"), "{agent}: {end}");
        assert_eq!(end["result"]["past it"], past, "{agent}: {end}");
        // Topics come in no order among each other: the result may be known before what came before it.
        eventually(|| async {
            let events = look(&prison.api(), &format!("/v1/tasks/{task}/events")).await?.to_string();
            if events.matches("network.denied").count() == 1 { Ok(()) } else { Err(events) }
        })
        .await;
    }
}

/// What a start that is to be refused said, which has its limit: one that goes on does not end.
async fn said_at_the_end(mut start: tokio::process::Command) -> std::process::Output {
    start.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let ended = tokio::time::timeout(PATIENCE, start.output()).await;
    ended.unwrap_or_else(|_| panic!("{start:?} was to be refused, and goes on")).unwrap()
}

#[tokio::test]
async fn where_no_wall_can_be_put_up_nobody_starts_and_the_doctor_says_what_holds() {
    let here = Prison::start().await;
    let doctor = tokio::process::Command::new(built_binary()).args(["doctor", "--url", here.api().base()]).output().await.unwrap();
    let said = String::from_utf8_lossy(&doctor.stdout);
    let walls = said.lines().find(|line| line.contains("agents are held by")).unwrap_or_else(|| panic!("{said}"));
    assert!(walls.trim_start().starts_with("ok") && walls.contains("namespaces") && walls.contains("seccomp"), "{walls}");
    // What does not hold stands there, too, with what to do about it.
    assert_eq!(said.contains("is bounded for each process only"), !here.holds_together(), "{said}");
    drop(here);

    if !rustix::process::getuid().is_root() {
        println!("NOTICE: not root, so that bubblewrap cannot be taken away");
        return;
    }
    let dir = Dir::new();
    // In a namespace of its own there is something else in its place.
    let script = r#"mount --bind /dev/null "$(readlink -f "$(command -v bwrap)")" && exec "$0" up --port 0 --sidecar-port 0 --data "$1" --agents "$2""#;
    let start = |agents: &str| {
        let agents = dir.write("agents.toml", agents);
        let mut fte = tokio::process::Command::new("unshare");
        fte.args(["--mount", "sh", "-c", script]).arg(built_binary()).arg(dir.join("data")).arg(agents).kill_on_drop(true);
        fte
    };
    let walled = "[agents.sh]\nkind = \"command\"\ncommand = [\"sh\"]\n";
    let refused = said_at_the_end(start(walled)).await;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("no sandbox can be made: bubblewrap (bwrap) is not installed") && said.contains("sandbox = \"none\""), "{said}");
    // Whoever says so by name has plain processes.
    let log = dir.join("log");
    let mut plain = start(&format!("{walled}sandbox = \"none\"\n")).stderr(fs::File::create(&log).unwrap()).spawn().unwrap();
    eventually(|| async {
        let said = fs::read_to_string(&log).unwrap();
        if said.contains("http://127.0.0.1:") { Ok(()) } else { Err(said) }
    })
    .await;
    plain.kill().await.unwrap();
}

/// Two that do nothing but work, for two seconds: how much of a processor they had, by the clock of processors and by that on the wall.
const WORKERS: &str = "import os, time\nbegan = time.monotonic()\nfor _ in range(2):\n    if os.fork() == 0:\n        while time.monotonic() < began + 2: pass\n        os._exit(0)\nfor _ in range(2): os.wait()\nused = os.times()\nprint((used.children_user + used.children_system) / (time.monotonic() - began))";

#[tokio::test]
async fn a_share_of_the_processors_is_held_or_nobody_starts_who_counts_on_it() {
    let shared = "[agents.shared]\nkind = \"command\"\ncommand = [\"python3\", \"-\"]\ncpus = 0.25\n";
    let here = Prison::start_with(&[], &format!("{shared}[sandbox]\naccept = [\"cpu\"]\n")).await;
    if here.process.log().contains("control groups") {
        // The kernel gives out a quarter of each tenth of a second, and no more however idle the machine is.
        let share: f64 = here.says("shared", WORKERS).await.trim().parse().unwrap();
        assert!(share < 0.4, "{share}");
    }
    drop(here);

    // As a user of its own it may make no control groups, and says so before any agent runs.
    if !rustix::process::getuid().is_root() {
        println!("NOTICE: not root, so that nobody else can be tried");
        return;
    }
    let dir = Dir::new();
    let agents = dir.write("agents.toml", format!("default = \"shared\"\n{shared}"));
    let script = r#"chown -R 12345:12345 "$1" && exec setpriv --reuid=12345 --regid=12345 --clear-groups -- "$2" up --port 0 --sidecar-port 0 --data "$1/data" --agents "$3""#;
    let mut fte = tokio::process::Command::new("sh");
    fte.args(["-c", script, "as-user"]).arg(dir.join("")).arg(built_binary()).arg(&agents).kill_on_drop(true);
    let refused = said_at_the_end(fte).await;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(
        said.contains("the share of processors that an agent asks for (cpus) is not held") && said.contains("accept = [\"cpu\"]"),
        "{said}"
    );
}
