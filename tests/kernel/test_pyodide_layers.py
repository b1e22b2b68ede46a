"""The layers of the WebAssembly sandbox one by one: each holds where the one inside of it is gone."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from wasm import needs_deno

pytestmark = [
    needs_deno,
    pytest.mark.skipif(sys.platform != "linux", reason="limits of processes are Linux's"),
]

# What `harden` takes away, kept for the guest.
KEEP = """
globalThis.kept = { Deno, process, Worker, caches, fetch, WebSocket, post: self.postMessage.bind(self) };
Deno.stdin.close = Deno.stdout.close = Deno.stderr.close = () => undefined;
"""
MAKE = (
    "globalThis.make = (code) => new kept.Worker(URL.createObjectURL(new Blob([code])), {type: 'module'});"
    "globalThis.wait = (ms) => new Promise((r) => setTimeout(r, ms));"
    "globalThis.say = (what) => kept.post({header: JSON.stringify(what)});"
)
CELL = "import js\nfrom pyodide.code import run_js\nprint(await run_js('(async () => {%s})()'))"


@pytest.fixture(scope="module")
def soft(tmp_path_factory):
    """A runtime whose worker is not hardened, and where Deno's own modules can be imported."""
    from rlm_kernel.repl.pyodide.runtime import IMPORTS, Runtime, ensure

    folder = tmp_path_factory.mktemp("soft")
    shutil.copytree(ensure().folder, folder, dirs_exist_ok=True)
    worker = folder / "worker.mjs"
    source = worker.read_text()
    assert source.count("  harden();\n") == 1
    worker.write_text(source.replace("  harden();\n", KEEP + "  harden();\n"))
    (folder / IMPORTS).write_text("{}")
    return Runtime(folder, snapshot=True)


@contextmanager
def child_of(runtime, **limits):
    from rlm_kernel.repl.pyodide.child import Child
    from rlm_kernel.repl.pyodide.runtime import deno_command
    from rlm_kernel.repl.pyodide.watch import Limits

    child = Child(runtime, deno_command(), Limits(**limits))
    try:
        child.ready()
        yield child
    finally:
        child.close()


def run(child, code, *, cell=1, seconds=20.0):
    """Run a cell; return what it showed, the cause of the sandbox's end appended."""
    child.busy = True
    child.send({"op": "execute", "cell": cell, "code": code, "silent": False, "count": cell, "stdin": False})
    shown = b""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        frame = child.take(0.2)
        if frame is None and not child.alive:
            return shown.decode() + f"[{child.cause}]"
        if frame is not None and frame.op == "done":
            child.busy = False
            return shown.decode()
        if frame is not None:
            shown += bytes(frame.body)
    raise AssertionError("the cell did not end")


def script(child, code, **options):
    code = MAKE + code
    return run(child, CELL % code.replace("\\", "\\\\").replace("'", "\\'"), **options)


@pytest.mark.parametrize(
    ("code", "refused"),
    [
        ("return kept.Deno.readTextFileSync('/etc/passwd')", "NotCapable: Requires read access"),
        ("return (await import('node:fs')).readFileSync('/etc/passwd', 'utf8')", "JsException"),
        ("return kept.Deno.env.get('HOME')", "NotCapable: Requires env access"),
        ("return JSON.stringify(kept.Deno.env.toObject())", "NotCapable: Requires env access"),
        ("return kept.Deno.writeTextFileSync('/tmp/x', 'x')", "NotCapable: Requires write access"),
        (
            "return new kept.Deno.Command('/usr/bin/id', {cwd: '/'}).outputSync()",
            "NotCapable: Requires run access",
        ),
        ("return await kept.Deno.connect({port: PORT})", "NotCapable: Requires net access"),
        ("return await kept.fetch('http://127.0.0.1:PORT/')", "NotCapable: Requires net access"),
        ("return await kept.fetch('file:///etc/passwd')", "NotCapable: Requires read access"),
        (
            (
                "const w = new kept.WebSocket('ws://127.0.0.1:PORT/'); "
                "return await new Promise((r) => { w.onerror = (e) => r(e.message) })"
            ),
            "NotCapable",
        ),
        ("return kept.Deno.hostname()", "NotCapable: Requires sys access"),
        ("return kept.Deno.dlopen('/lib/x86_64-linux-gnu/libc.so.6', {})", "NotCapable: Requires ffi access"),
        ("return await import('http://127.0.0.1:PORT/x.js')", "import access"),
        ("return await kept.Deno.permissions.request({name: 'read'}).then((p) => p.state)", "denied"),
        ("return (await import('node:child_process')).execSync('id')", ""),
    ],
)
def test_without_hardening_deno_refuses(shared_soft, code, refused):
    child, listener, cells = shared_soft
    cells.append(1)
    shown = script(child, code.replace("PORT", str(listener.getsockname()[1])), cell=len(cells))
    assert refused in shown
    assert "root:" not in shown
    assert "uid=" not in shown
    with pytest.raises(BlockingIOError):
        listener.accept()


@pytest.fixture(scope="module")
def shared_soft(soft):
    with child_of(soft) as child, closing(socket.create_server(("127.0.0.1", 0))) as listener:
        listener.setblocking(False)
        yield child, listener, []


def test_paths_that_can_be_seen_tell_nothing_of_the_user(soft):
    code = "const { Deno: d, process: p } = kept; return [d.cwd(), d.args, d.mainModule, p.argv[1]].join()"
    with child_of(soft) as child:
        shown = script(child, code)
    assert sys.prefix not in shown
    assert "rlm_kernel" not in shown


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("kept.Deno.stdout.writeSync(new Uint8Array(90))", "tampered"),
        ("(await import('node:fs')).writeSync(1, new Uint8Array(90))", "tampered"),
        ("make('Deno.stdout.writeSync(new Uint8Array(90).fill(9))'); await wait(5000)", "it"),
        ("kept.post({header: 5})", "sends"),
        ("kept.post({header: '{}', body: 'text'})", "sends"),
        ("say({op: 'done', cell: 99}); await wait(500)", ""),
        ("say({op: 'broken', reason: 'x'}); await wait(5000)", "tampered"),
        (
            "const c = await kept.caches.open('x'); await c.put('http://x/', new Response('y'))",
            "write a file",
        ),
        ("for (let i = 0; i < 100; i++) make('for(;;){}'); await wait(5000)", "it"),
        ("const held = []; for (;;) held.push(new Uint8Array(1e7).fill(1))", "more than the 700 allowed"),
    ],
)
def test_without_hardening_the_host_ends_what_tampers(soft, code, cause):
    with child_of(soft, memory_mib=700) as child:
        shown = script(child, code)
        assert cause in child.cause
        assert bool(cause) is not child.alive, shown


def test_computing_between_cells_has_an_end():
    from rlm_kernel.repl.pyodide.runtime import ensure

    with child_of(ensure(), idle_cpu_seconds=0.3) as child:
        assert run(child, "import js\njs.setTimeout(js.eval('() => { for (;;) {} }'), 50)\n1") != ""
        assert child._ended.wait(20)
        assert "after its cell had ended" in child.cause


def test_its_process_has_an_empty_environment_and_limits(monkeypatch):
    from rlm_kernel.repl.pyodide.runtime import ensure

    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-layers")
    with child_of(ensure()) as child:
        environment = dict(
            each.split("=", 1) for each in Path(f"/proc/{child.pid}/environ").read_text().split("\0") if each
        )
        limits = Path(f"/proc/{child.pid}/limits").read_text()
        descriptors = [os.readlink(each) for each in Path(f"/proc/{child.pid}/fd").iterdir()]
    assert set(environment) == {
        "DENO_DIR",
        "DENO_NO_UPDATE_CHECK",
        "DENO_NO_PACKAGE_JSON",
        "NO_COLOR",
        "HOME",
    }
    assert not [
        line
        for line in limits.splitlines()
        if line.startswith("Max file size") and line.split()[3:5] != ["0", "0"]
    ]
    assert len([each for each in descriptors if each.startswith("pipe:")]) >= 3
    assert not [each for each in descriptors if "sock" in each and "deno" in each]


def test_nothing_is_left_of_it_when_the_host_is_killed(tmp_path):
    code = (
        "import os, sys\nfrom rlm_kernel.repl.pyodide import child, runtime\n"
        "c = child.Child(runtime.ensure(), runtime.deno_command()); c.ready(); print(c.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    pid = int(done.stdout)
    while (
        Path(f"/proc/{pid}").exists()
        and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    ):
        os.sched_yield()
    assert list(tmp_path.iterdir()) == []


def test_all_of_denos_own_modules_are_blocked():
    from rlm_kernel.repl.pyodide.runtime import IMPORTS, deno_command, ensure

    code = "import { builtinModules } from 'node:module'; console.log(JSON.stringify(builtinModules))"
    done = subprocess.run(
        [deno_command(), "eval", code], capture_output=True, text=True, timeout=60, check=True
    )
    there = {f"node:{name.removeprefix('node:')}" for name in json.loads(done.stdout)}
    blocked = json.loads((ensure().folder / IMPORTS).read_text())["imports"]
    assert there <= set(blocked)
    assert set(blocked.values()) == {None}
