"""The images' Dockerfiles: linted, carried out, and what comes of them run as a cluster runs it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from dockerfiles import IMAGES, ROOT, build, needs_bubblewrap
from gateways import TOKEN, free_port, open_remote

from rlm_kernel import ScriptedModel
from rlm_kernel.models.server import ScriptedServer

# Installing the requirements takes its time, once.
pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform != "linux", reason="the images' steps are carried out in bubblewrap"),
]


def test_dockerfiles_are_linted(tmp_path):
    linter = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert linter, "hadolint is one of the extra `test`"
    command = [linter, "--failure-threshold", "style", "--no-color"]
    done = subprocess.run(
        [*command, *IMAGES.glob("*.Dockerfile")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    wrong = tmp_path / "Dockerfile"
    wrong.write_text("FROM python\nRUN cd /tmp && pip install x\n")
    done = subprocess.run([*command, wrong], capture_output=True, text=True, check=False)
    assert "DL3006" in done.stdout
    assert done.returncode


@asynccontextmanager
async def started(stage, port, ready, **variables):
    """A container's process: as its user, without capabilities, with a root that it can't write to."""
    given = [word for name, value in variables.items() for word in ("--setenv", name, value)]
    log = stage.folder.with_suffix(".log")
    with log.open("wb") as out:
        command = [*stage.arguments(writable=False), *given, *stage.command]
        process = await asyncio.create_subprocess_exec(
            *command, stdout=out, stderr=out, start_new_session=True
        )
    try:
        async with asyncio.timeout(120):
            while not await asyncio.to_thread(_answers, f"http://127.0.0.1:{port}{ready}"):
                assert process.returncode is None, log.read_text(errors="replace")
                await asyncio.sleep(0.1)
        yield log
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _answers(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as reply:
            return reply.status == 200
    except (OSError, urllib.error.URLError):
        return False


async def inside(stage, *command, **variables):
    """Run a command in an image; return its output."""
    given = [word for name, value in variables.items() for word in ("--setenv", name, value)]
    process = await asyncio.create_subprocess_exec(
        *stage.arguments(writable=False),
        *given,
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, error = await process.communicate()
    assert process.returncode == 0, error.decode(errors="replace")
    return out.decode()


async def kernelspecs(url):
    asked = urllib.request.Request(f"{url}/api/kernelspecs", headers={"Authorization": f"token {TOKEN}"})
    with await asyncio.to_thread(urllib.request.urlopen, asked) as reply:
        found = json.load(reply)
    return found["default"], set(found["kernelspecs"])


@pytest.fixture(scope="module")
def orchestrator(request, tmp_path_factory):
    needs_bubblewrap()
    if not (ROOT / "extension" / "labextension" / "package.json").is_file():
        pytest.skip("the labextension is not built: make extension")
    return build("orchestrator", tmp_path_factory.mktemp("orchestrator"), request.config.cache)


async def test_an_orchestrator_and_a_gateway_with_webassembly(request, tmp_path, orchestrator):
    from rlm_kernel.repl.pyodide.runtime import VERSION
    from rlm_kernel.repl.pyodide.transport import make_ready

    # Downloaded once for all tests, and checked against the pinned hashes like a download.
    local = Path(make_ready()).parent / f"core-{VERSION}"
    cache = request.config.cache
    gateway = await asyncio.to_thread(
        build, "gateway-pyodide", tmp_path / "gateway", cache, RLM_PYODIDE_PATH=os.fspath(local)
    )

    # As the base image would have it, nothing can be written to but what is a volume.
    for place, fails in (
        ("/opt/rlm/x", True),
        ("/x", True),
        ("/etc/rlm-gateway/x", True),
        ("/home/rlm/x", False),
    ):
        told = await inside(gateway, "sh", "-c", f"touch {place} 2>/dev/null && echo written || id -u")
        assert told.strip() == ("10001" if fails else "written")

    # (A context from this machine is not among the image's files.)
    (orchestrator.folder / "src" / "report.txt").write_text("some text")
    port = free_port()
    models = {"root": ScriptedModel(lambda request: "```repl\nFINAL(llm_query(context))\n```", name="root")}
    models["sub"] = ScriptedModel(lambda request: "read: " + request.messages[-1]["content"], name="sub")
    async with (
        started(gateway, port, "/api/swagger.json", KG_PORT=str(port), KG_AUTH_TOKEN=TOKEN) as log,
        ScriptedServer(models) as endpoint,
    ):
        url = f"http://127.0.0.1:{port}"
        command = ("jupyter", "rlm", "run", "--json", "--no-save", "--context", "/src/report.txt", "What?")
        out = await inside(
            orchestrator,
            *command,
            RLM_REPL="gateway",
            RLM_GATEWAY_URL=url,
            RLM_GATEWAY_TOKEN=TOKEN,
            RLM_MODEL="root",
            RLM_SUB_MODEL="sub",
            OPENAI_BASE_URL=endpoint.base_url,
            OPENAI_API_KEY="sk-canary-images",
        )
        assert json.loads(out)["answer"] == "read: some text"
        async with open_remote(url, name="rlm-pyodide") as repl:
            assert await repl.value("import sys; sys.platform") == "'emscripten'"
        with pytest.raises(urllib.error.HTTPError, match="401"):
            await asyncio.to_thread(urllib.request.urlopen, f"{url}/api/kernelspecs")
        text = log.read_text()
    # The account of what was executed is in the container's log, the code and the token are not.
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    executed = [each for each in lines if each["event"] == "execute"]
    assert executed
    assert all(len(each["code_sha256"]) == 64 and each["kernel_name"] == "rlm-pyodide" for each in executed)
    assert TOKEN not in text
    assert "FINAL" not in text


async def test_the_orchestrator_serves_notebooks(monkeypatch, orchestrator):
    port = free_port()
    command = [
        word.replace("0.0.0.0", "127.0.0.1").replace("8888", str(port)) for word in orchestrator.command
    ]
    monkeypatch.setattr(orchestrator, "command", command)
    async with started(orchestrator, port, "/api", JUPYTER_TOKEN=TOKEN):
        assert {"rlm", "python3"} <= (await kernelspecs(f"http://127.0.0.1:{port}"))[1]
        url = f"http://127.0.0.1:{port}/lab/api/extensions"
        asked = urllib.request.Request(url, headers={"Authorization": f"token {TOKEN}"})
        with await asyncio.to_thread(urllib.request.urlopen, asked) as reply:
            assert "rlm-kernel-labextension" in {each["name"] for each in json.load(reply)}


async def test_a_gateway_with_native_kernels(request, tmp_path):
    needs_bubblewrap()
    stage = await asyncio.to_thread(build, "gateway-native", tmp_path / "gateway", request.config.cache)
    port = free_port()
    given = {"KG_PORT": str(port), "KG_AUTH_TOKEN": TOKEN}
    url = f"http://127.0.0.1:{port}"
    # Not started here: bubblewrap in bubblewrap would be a test of this machine.
    async with started(stage, port, "/api/swagger.json", **given):
        assert await kernelspecs(url) == ("rlm-sandbox", {"rlm-sandbox"})
    # As the overlay `remote-native` has it.
    async with started(stage, port, "/api/swagger.json", **given, RLM_GATEWAY_KERNELS="python3"):
        assert await kernelspecs(url) == ("python3", {"python3"})
        async with open_remote(url) as repl:
            assert await repl.value("import os; os.getuid(), llm_query('q')") == "(10001, 'reply to q')"
            code = "try: open('/opt/rlm/x', 'w')\nexcept OSError as error: print(error.strerror)"
            assert "Read-only file system" in (await repl.run(code)).outputs[0].text
