"""Two orchestrators on one gateway: neither gets at what is the other's, whatever it asks for."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from gateways import TOKEN, Server, python_of
from kernels import Repl
from wasm import needs_deno

from rlm_kernel.context import Context
from rlm_kernel.errors import KernelStartError
from rlm_kernel.repl.gateway.address import Gateway
from rlm_kernel.repl.gateway.session import GatewaySession
from rlm_kernel.repl.gateway.transport import GatewayTransport

# Making the environments takes its time, once.
pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform == "win32", reason="the gateways' processes are ended as groups"),
]
ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "remote_kernel_gateway"
NOBODY = "00000000-0000-4000-8000-000000000000"
CONFIG = """\
import sys
sys.path.insert(0, {package!r})
for name in ("KernelGatewayApp", "ServerApp"):
    module = "rlm_gateway.for_" + ("jupyter_server" if name == "ServerApp" else "kernel_gateway")
    c[name].identity_provider_class = module + ".TenantIdentityProvider"
    c[name].kernel_manager_class = module + ".TenantKernelManager"
    c[name].kernel_websocket_connection_class = "rlm_gateway.audit.AuditedConnection"
c.TenantIdentityProvider.tenants_file = {tenants!r}
c.TenantKernelManager.kernels_per_tenant = 3
c.TenantKernelManager.kernel_names = ["python3", "rlm-pyodide"]
c.Audit.file = {audit!r}
c.JupyterWebsocketPersonality.list_kernels = True
c.KernelGatewayApp.max_kernels = 7
c.MappingKernelManager.cull_idle_timeout = 600
"""


def keep(command, name, file, *options):
    """The tool that keeps the file of tenants."""
    done = subprocess.run(
        [sys.executable, "-m", "rlm_gateway", command, name, "--file", file, *options],
        env={**os.environ, "PYTHONPATH": os.fspath(PACKAGE)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class Shared:
    """A gateway with two tenants."""

    def __init__(self, kind, folder, cache, *, spec=None):
        self.file, self.audit = folder / "tenants.json", folder / "audit.jsonl"
        self.alice, self.bob = (keep("add", name, self.file) for name in ("alice", "bob"))
        config = folder / "config.py"
        paths = {
            "package": os.fspath(PACKAGE),
            "tenants": os.fspath(self.file),
            "audit": os.fspath(self.audit),
        }
        config.write_text(CONFIG.format(**paths))
        if spec is not None:
            path = folder / "data" / "kernels" / "rlm-pyodide" / "kernel.json"
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps(spec))
        self.server = Server(kind, python_of(kind, cache), folder, f"--config={config}")
        # No token for all.
        self.server._command = [part for part in self.server._command if TOKEN not in part]
        self.server.start()
        self.url = self.server.url

    def lines(self):
        return [json.loads(line) for line in self.audit.read_text().splitlines()]

    async def ask(self, token, method, path, **options):
        """The status of a reply, and what it says."""
        headers = {"Authorization": f"token {token}"} if token else {}
        async with (
            aiohttp.ClientSession(headers=headers) as client,
            client.request(method, f"{self.url}/api/{path}", **options) as reply,
        ):
            text = await reply.text()
        try:
            return reply.status, json.loads(text)
        except ValueError:
            return reply.status, text

    @asynccontextmanager
    async def kernel(self, token, *contexts, name="python3"):
        """A started session of a tenant's."""
        session = GatewaySession(GatewayTransport(Gateway(self.url, token, name)))
        try:
            info = await session.start([Context.of(*each) for each in contexts])
            yield info.id, Repl(session)
        finally:
            await session.close()


@pytest.fixture(scope="module", params=["kernel-gateway", "jupyter-server"])
def shared(request, tmp_path_factory):
    shared = Shared(request.param, tmp_path_factory.mktemp(request.param), request.config.cache)
    yield shared
    shared.server.stop()


async def connect(shared, token, kernel):
    """The status that an attempt at a kernel's websocket ends with."""
    headers = {"Authorization": f"token {token}"} if token else {}
    async with aiohttp.ClientSession(headers=headers) as client:
        try:
            async with client.ws_connect(f"{shared.url}/api/kernels/{kernel}/channels?session_id=1"):
                return 101
        except aiohttp.WSServerHandshakeError as error:
            return error.status


async def test_what_is_another_tenants_does_not_exist(shared):
    async with shared.kernel(shared.alice, ("context", "a secret")) as (kernel, repl):
        for id_ in (kernel, NOBODY):
            for method, path in (
                *(("GET", ""), ("DELETE", "")),
                *(("POST", "/interrupt"), ("POST", "/restart")),
            ):
                status, said = await shared.ask(shared.bob, method, f"kernels/{id_}{path}")
                assert status == 404, (method, path, said)
                assert "Traceback" not in str(said)
            assert await connect(shared, shared.bob, id_) == 404
        found = {id_: await shared.ask(shared.bob, "GET", f"kernels/{id_}") for id_ in (kernel, NOBODY)}
        assert json.dumps(found[kernel]).replace(kernel, NOBODY) == json.dumps(found[NOBODY])
        assert await shared.ask(shared.bob, "GET", "kernels") == (200, [])
        status, mine = await shared.ask(shared.alice, "GET", "kernels")
        assert (status, [each["id"] for each in mine]) == (200, [kernel])
        # A kernel's own tenant is not in its way, and nobody was let near it.
        assert await connect(shared, shared.alice, kernel) == 101
        assert await repl.value("context") == "'a secret'"
        assert (await shared.ask(shared.alice, "POST", f"kernels/{kernel}/interrupt"))[0] == 204


async def test_a_start_request_leads_to_no_other_kernel(shared):
    async with shared.kernel(shared.alice) as (kernel, _):
        for id_ in (kernel, NOBODY):
            status, said = await shared.ask(
                shared.bob, "POST", "kernels", json={"name": "python3", "kernel_id": id_}
            )
            # A Kernel Gateway hears of no id.
            if status == 201:
                assert said["id"] not in (kernel, NOBODY)
                await shared.ask(shared.bob, "DELETE", f"kernels/{said['id']}")
            else:
                assert status == 403


@pytest.mark.parametrize("kernel", ["", "theirs"])
async def test_other_parts_of_the_server_are_closed(shared, kernel):
    async with shared.kernel(shared.alice) as (id_, _):
        session = {"path": "x", "name": "x", "type": "notebook", "kernel": {"id": id_} if kernel else {}}
        assert (await shared.ask(shared.bob, "POST", "sessions", json=session))[0] == 403
        for path in ("sessions", f"sessions/{NOBODY}", "status", "contents/", "terminals", "config/x", "me"):
            assert (await shared.ask(shared.bob, "GET", path))[0] in (403, 404), path
        assert (await shared.ask(shared.bob, "POST", "shutdown"))[0] in (403, 404)
        assert (await shared.ask(shared.bob, "GET", "kernelspecs"))[0] == 200
        assert len(await shared.ask(shared.alice, "GET", "kernels")) == 2


async def test_nobody_else_is_let_in(shared):
    async with shared.kernel(shared.alice) as (kernel, _):
        for token in ("", "canary-wrong", shared.alice[:-1], shared.alice.swapcase(), "alice"):
            for path in ("kernels", f"kernels/{kernel}", "kernelspecs"):
                assert (await shared.ask(token, "GET", path))[0] in (401, 403), (token, path)
            assert await connect(shared, token, kernel) in (401, 403)
        assert shared.alice not in shared.file.read_text() + shared.server.log
        # Neither by a URL, which ends up in logs, nor by the file's hash of the token.
        assert (await shared.ask("", "GET", f"kernels?token={shared.alice}"))[0] == 403
        hash_ = hashlib.sha256(shared.alice.encode()).hexdigest()
        assert hash_ in shared.file.read_text()
        assert (await shared.ask(hash_, "GET", "kernels"))[0] == 403


async def test_each_has_kernels_up_to_a_number_of_its_own(shared):
    carol = keep("add", "carol", shared.file, "--kernels", "1")
    start = {"json": {"name": "python3"}}
    replies = await asyncio.gather(*(shared.ask(shared.alice, "POST", "kernels", **start) for _ in range(5)))
    started = [said["id"] for status, said in replies if status == 201]
    assert (len(started), [status for status, _ in replies].count(403)) == (3, 2)
    with pytest.raises(KernelStartError, match="alice has 3 kernels"):
        async with shared.kernel(shared.alice):
            pass
    # One who is at the limit is not in another's way.
    async with shared.kernel(carol) as (_, repl):
        assert await repl.value("6 * 7") == "42"
        assert (await shared.ask(carol, "POST", "kernels", **start))[0] == 403
    for id_ in started:
        assert (await shared.ask(shared.alice, "DELETE", f"kernels/{id_}"))[0] == 204
    async with shared.kernel(shared.alice):
        pass


async def test_a_tenant_that_was_removed_has_nothing_any_more(shared):
    dave = keep("add", "dave", shared.file)
    assert (await shared.ask(dave, "GET", "kernels"))[0] == 200
    keep("remove", "dave", shared.file)
    assert (await shared.ask(dave, "GET", "kernels"))[0] == 403
    # A file that is no file of tenants lets nobody in.
    good = shared.file.read_text()
    shared.file.write_text(good[:-10])
    assert (await shared.ask(shared.alice, "GET", "kernels"))[0] == 403
    shared.file.write_text(good)
    assert (await shared.ask(shared.alice, "GET", "kernels"))[0] == 200


async def test_kernels_of_other_kinds_are_not_started(shared):
    status, said = await shared.ask(shared.alice, "POST", "kernels", json={"name": "bash"})
    assert (status, "not bash" in str(said)) == (403, True)


async def test_the_variables_of_a_request_reach_its_own_kernel_only(shared):
    """A Kernel Gateway puts them where starts that are under way at that time find them."""
    if shared.server.kind != "kernel-gateway":
        return

    async def seen(token, word):
        body = {"name": "python3", "env": {f"KERNEL_{word}": word}}
        _, said = await shared.ask(token, "POST", "kernels", json=body)
        environ = next(
            path.read_bytes()
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if said["id"].encode() in path.read_bytes()
            for path in [path.with_name("environ")]
        )
        await shared.ask(token, "DELETE", f"kernels/{said['id']}")
        return b"KERNEL_A=A" in environ, b"KERNEL_B=B" in environ

    if sys.platform != "linux":
        return
    for _ in range(2):
        one, other = await asyncio.gather(seen(shared.alice, "A"), seen(shared.bob, "B"))
        assert (one, other) == ((True, False), (False, True))


async def test_each_execution_is_a_line(shared):
    code = "x = 'canary-code'"
    async with shared.kernel(shared.bob) as (kernel, repl):
        await repl.run(code)
        await repl.run("len(x)")
    mine = [line for line in shared.lines() if line["kernel"] == kernel]
    assert mine[0]["event"] == "start"
    assert {line["user"] for line in mine} == {"bob"}
    hashes = [line.get("code_sha256") for line in mine]
    assert hashlib.sha256(code.encode()).hexdigest() in hashes
    executed = next(line for line in mine if line.get("code_sha256") == hashes[-1])
    assert executed["session"]
    assert executed["kernel_name"] == "python3"
    assert executed["time"].endswith("+00:00")
    text = shared.audit.read_text()
    assert "canary-code" not in text
    assert shared.bob not in text


async def test_what_comes_by_another_channel_is_noted_too(shared):
    """Expressions are code without code, and control executes as well."""
    header = {"msg_id": "1", "username": "", "session": "s", "msg_type": "execute_request", "version": "5.3"}
    content = {"code": "", "silent": True, "user_expressions": {"a": "6 * 7"}, "allow_stdin": False}
    message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "buffers": []}
    async with (
        shared.kernel(shared.alice) as (kernel, _),
        aiohttp.ClientSession(headers={"Authorization": f"token {shared.alice}"}) as client,
        client.ws_connect(f"{shared.url}/api/kernels/{kernel}/channels?session_id=attack") as line,
    ):
        await line.send_json({**message, "channel": "control"})
        async for frame in line:
            if frame.json()["msg_type"] == "execute_reply":
                break
    noted = [each for each in shared.lines() if each.get("session") == "attack"]
    assert [each["kernel"] for each in noted] == [kernel]
    assert noted[0]["expressions_sha256"]


@needs_deno
async def test_a_sandboxed_kernel_does_not_find_the_others(request, tmp_path, spec_folder):
    """What a native kernel finds on the gateway's disk opens every kernel; another finds no disk."""
    (given,) = spec_folder.glob("kernels/rlm-pyodide/kernel.json")
    spec = {**json.loads(given.read_text()), "env": {"PYTHONPATH": os.fspath(ROOT)}}
    shared = Shared("kernel-gateway", tmp_path, request.config.cache, spec=spec)
    folder = os.fspath(tmp_path / "runtime")
    attack = (
        f"import glob\nfound = glob.glob({folder!r} + '/kernel-*.json')\n"
        f"found += glob.glob({os.fspath(shared.file)!r})\n"
        "print(len(found), [open(each, 'rb').read(1) for each in found])"
    )
    try:
        async with (
            shared.kernel(shared.alice, ("context", "a secret")) as (theirs, _),
            shared.kernel(shared.bob, name="python3") as (_, native),
            shared.kernel(shared.bob, name="rlm-pyodide") as (_, sandboxed),
        ):
            reached = "".join(output.text for output in (await native.run(attack)).outputs)
            assert int(reached.split()[0]) >= 3
            kept = "".join(output.text for output in (await sandboxed.run(attack)).outputs)
            assert kept.strip() == "0 []"
            assert theirs
    finally:
        shared.server.stop()


def test_without_other_words_tenants_start_no_native_kernel(monkeypatch):
    pytest.importorskip("kernel_gateway")
    monkeypatch.syspath_prepend(os.fspath(PACKAGE))
    from rlm_gateway.for_jupyter_server import TenantKernelManager

    assert TenantKernelManager.class_traits()["kernel_names"].default() == ["rlm-pyodide", "rlm-sandbox"]


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"a": {}}', '{"A": {"sha256": "x"}}', '{"a": {"sha256": "x"}}', '{"a": 1}'],
)
def test_a_file_that_can_not_be_used_is_refused(content, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(os.fspath(PACKAGE))
    from rlm_gateway.tokens import Tenants, add, digest

    file = tmp_path / "tenants.json"
    file.write_text(content)
    with pytest.raises(ValueError, match="can't be read"):
        Tenants(file)
    same = {"sha256": digest("x"), "kernels": 1}
    file.write_text(json.dumps({"a": same, "b": same}))
    with pytest.raises(ValueError, match="of its own"):
        Tenants(file)
    file.unlink()
    with pytest.raises(ValueError, match="no name"):
        add(file, "../a")
    token = add(file, "a", 2)
    assert Tenants(file).find(token).kernels == 2
    assert Tenants(file).find("") is None
