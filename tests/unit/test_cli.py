"""The command line as a user meets it: a process, its exit code, its stdout, its stderr."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from rlm_kernel.demo import library_source
from rlm_kernel.models.scripted import ScriptedModel
from rlm_kernel.models.server import ScriptedServer

ROOT = Path(__file__).parents[2]
KEY = "sk-canary-0123456789abcd"
COMMAND = [sys.executable, "-m", "rlm_kernel.cli"]


def environment(**variables: str) -> dict[str, str]:
    """Return this process's environment, from which the settings were taken, with ``variables``."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **variables}


async def start(folder, *args, stdin=None, stdout=subprocess.PIPE, **variables):
    return await asyncio.create_subprocess_exec(
        *COMMAND,
        *args,
        cwd=folder,
        env=environment(**variables),
        stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
    )


async def jupyter_rlm(folder, *args, stdin=None, **variables) -> tuple[int, str, str]:
    """Run the command line in ``folder``; return exit code, stdout and stderr."""
    process = await start(folder, *args, stdin=stdin, **variables)
    out, err = await asyncio.wait_for(process.communicate(stdin), 120)
    return process.returncode, out.decode(), err.decode()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "text.txt").write_text("alpha beta\nword gamma\nword\n" * 100, encoding="utf-8")
    (tmp_path / "empty.txt").touch()
    return tmp_path


def test_help_needs_nothing_heavy_and_lists_exit_codes():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "rlm_kernel.cli", "run", "--help"],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.search(r"^  130  cancelled", done.stdout, re.MULTILINE)
    assert not re.search(r"\| +(openai|zmq|IPython|aiohttp|rich|asyncio)\b", done.stderr)


ASK = ("run", "--context", "text.txt", "--base-url", "http://127.0.0.1:9/v1", "--model", "m", "How many?")


@pytest.mark.parametrize(
    ("args", "variables", "words"),
    [
        ((), {}, "COMMAND"),
        (("fly",), {}, "fly"),
        (("run", "--color", "x"), {}, "--color"),
        (("run", "--context", "text.txt"), {}, "no question"),
        (("run", "--context", "text.txt", "  "), {}, "no question"),
        (("run", "How many?"), {}, "no context"),
        (("run", "--context", "missing.txt", *ASK[3:]), {}, "missing.txt"),
        (("run", "--context", "no-*.txt", *ASK[3:]), {}, "no-*.txt"),
        (("run", "--context", "empty.txt", *ASK[3:]), {}, "empty"),
        (("run", "--context", "loop", *ASK[3:]), {}, "loop"),
        (("run", "--context", "-", "--context", "b=-", *ASK[3:]), {}, "standard input"),
        (("run", "--context", "answer=text.txt", *ASK[3:]), {}, "answer"),
        (("run", "--context", "text.txt", "How many?"), {}, "give --base-url"),
        (("run", "--base-url", "127.0.0.1", *ASK[1:3], "How many?"), {}, "127.0.0.1"),
        (("run", "--base-url", "http://127.0.0.1:9/v1", *ASK[1:3], "How many?"), {}, "give --model"),
        ((*ASK, "--budget-usd", "0"), {}, "USD above 0"),
        ((*ASK, "--budget-usd", "1"), {}, "--price"),
        ((*ASK, "--price", "m=1"), {}, "MODEL=IN/OUT"),
        ((*ASK, "--depth", "abc"), {}, "whole number"),
        ((*ASK, "--repl", "nowhere"), {}, "nowhere"),
        ((*ASK, "--save", "a", "--no-save"), {}, "--save"),
        (ASK, {"RLM_MAX_DEPTH": "abc"}, "RLM_MAX_DEPTH"),
        (ASK, {"OPENAI_API_KEY": f"{KEY} {KEY}"}, "OPENAI_API_KEY"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else None,
)
async def test_unusable_input_ends_in_one_or_two_lines(folder, args, variables, words):
    (folder / "loop").symlink_to("loop")
    code, out, err = await jupyter_rlm(folder, *args, **variables)
    lines = err.splitlines()
    assert code == 2, err
    assert out == ""
    assert lines[0].startswith("jupyter rlm: ")
    assert words in err
    assert len(lines) <= 2
    assert KEY not in err


async def test_debug_shows_the_traceback(folder):
    _, _, err = await jupyter_rlm(folder, "run", "--context", "missing.txt", *ASK[3:], RLM_DEBUG="1")
    assert "Traceback" in err
    assert err.splitlines()[-2].startswith("jupyter rlm: ")


async def test_unreachable_endpoint(folder):
    code, _, err = await jupyter_rlm(folder, *ASK, "--quiet", "--no-save", "--budget-seconds", "3")
    assert code in {5, 6}
    assert err.startswith("jupyter rlm: ")
    assert "Traceback" not in err


def served(**scripts) -> ScriptedServer:
    return ScriptedServer({name: ScriptedModel(script, name=name) for name, script in scripts.items()})


def at(server, *, model="root") -> tuple[str, ...]:
    return ("--base-url", server.base_url, "--model", model)


CODE = "```repl\nn = sum(len(t) for t in [context])\nprint(n)\n```"
DONE = "```repl\nFINAL(n)\n```"


async def test_json_is_one_object_and_the_trajectory_is_kept(folder):
    async with served(root=[CODE, DONE]) as server:
        code, out, err = await jupyter_rlm(
            folder, "run", "--context", "text.txt", *at(server), "--json", "--price", "root=1/2", "How long?"
        )
    assert code == 0, err
    found = json.loads(out)
    assert (found["status"], found["answer"], found["value"]) == ("answered", "2700", 2700)
    assert (found["calls"], found["iterations"]) == (2, 2)
    assert found["usage"]["cost_usd"] > 0
    lines = (folder / found["trace"]).read_text(encoding="utf-8").splitlines()
    assert Path(found["trace"]).parent == Path(".rlm/traces")
    assert json.loads(lines[-1])["type"] == "run_finished"


async def test_quiet_prints_the_answer_alone(folder):
    async with served(root=[CODE, DONE]) as server:
        code, out, err = await jupyter_rlm(
            folder, "run", "--context", "text.txt", *at(server), "--quiet", "--no-save", "How long?"
        )
    assert (code, out) == (0, "2700\n"), err
    assert not (folder / ".rlm").exists()


async def test_plain_view_shows_turns_and_where_the_trajectory_is(folder):
    async with served(root=[CODE, DONE]) as server:
        code, out, err = await jupyter_rlm(
            folder, "run", "--context", "text.txt", *at(server), "--plain", "--save", "t.jsonl", "How long?"
        )
    assert code == 0, err
    assert "2700" in out
    assert "\x1b" not in out
    assert out.splitlines()[-1] == "Trajectory: t.jsonl"


async def test_named_contexts_and_standard_input(folder):
    script = ["```repl\nprint(len(old), len(context))\n```", "```repl\nFINAL(len(old) - len(context))\n```"]
    async with served(root=script) as server:
        code, out, err = await jupyter_rlm(
            folder,
            *(
                "run",
                "--context",
                "old=text.txt",
                "--context",
                "-",
                *at(server),
                "--quiet",
                "--no-save",
                "Q?",
            ),
            stdin=b"0123456789",
        )
    assert (code, out) == (0, "2690\n"), err


@pytest.mark.parametrize(
    ("script", "options", "code"),
    [
        (lambda request: CODE, ("--iterations", "2"), 3),
        ([CODE, DONE], ("--budget-calls", "1"), 4),
        ([CODE, DONE], ("--price", "root=1000000/1000000", "--budget-usd", "0.01"), 4),
    ],
    ids=["exhausted", "calls", "usd"],
)
async def test_exit_codes_tell_outcomes_apart(folder, script, options, code):
    async with served(root=script) as server:
        found, _, err = await jupyter_rlm(
            folder, "run", "--context", "text.txt", *at(server), "--quiet", *options, "How long?"
        )
    assert found == code, err
    assert err.startswith("jupyter rlm: ")
    assert len(err.splitlines()) <= 2


async def test_out_of_time(folder):
    async def hang(request):
        await asyncio.sleep(60)
        return DONE

    async with served(root=hang) as server:
        code, _, err = await jupyter_rlm(
            folder,
            "run",
            "--context",
            "text.txt",
            *at(server),
            "--quiet",
            "--budget-seconds",
            "2",
            "How long?",
        )
    assert code == 5, err


async def test_unknown_model(folder):
    async with served(root=[DONE]) as server:
        code, _, err = await jupyter_rlm(
            folder, "run", "--context", "text.txt", *at(server, model="other"), "--quiet", "How long?"
        )
    assert code == 6
    assert "other" in err
    assert len(err.splitlines()) <= 2


async def test_trajectory_that_cannot_be_written_is_told(folder):
    async with served(root=[CODE, DONE]) as server:
        code, out, err = await jupyter_rlm(
            folder,
            *(
                "run",
                "--context",
                "text.txt",
                *at(server),
                "--quiet",
                "--save",
                "text.txt/t.jsonl",
                "How long?",
            ),
        )
    assert (code, out) == (0, "2700\n")
    assert "trajectory can't be written" in err


async def test_interrupt_ends_with_130_and_leaves_no_process(folder):
    asked = asyncio.Event()

    async def hang(request):
        asked.set()
        await asyncio.sleep(600)
        return DONE

    async with served(root=hang) as server:
        process = await start(folder, "run", "--context", "text.txt", *at(server), "--quiet", "How long?")
        await asyncio.wait_for(asked.wait(), 60)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        _, err = await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode == 130
        assert "Traceback" not in err.decode()
        assert psutil.wait_procs(children, timeout=10)[1] == []


async def test_reader_of_stdout_that_goes_away_ends_the_run(folder):
    gone = asyncio.Event()

    async def reply(request):
        await gone.wait()
        return CODE

    async with served(root=reply) as server:
        reading, writing = os.pipe()
        process = await start(
            folder, "run", "--context", "text.txt", *at(server), "How long?", stdout=writing
        )
        os.close(writing)
        assert await asyncio.to_thread(os.read, reading, 1)
        os.close(reading)
        gone.set()
        _, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 130
    assert err.decode() == "jupyter rlm: cancelled\n"


async def test_demo_computes_its_answer_from_the_text(folder):
    code, out, err = await jupyter_rlm(folder, "demo", "--json", "--no-save")
    assert code == 0, err
    found = json.loads(out)
    assert found["status"] == "answered"
    files, size = library_source()
    assert size >= 10_000_000
    counts = {
        path: len(re.findall(r"^[ \t]*(?:async[ \t]+)?def[ \t]", text, re.MULTILINE))
        for path, text in files.items()
    }
    most = max(counts, key=counts.get)
    for fact in (most, counts[most], sum(counts.values())):
        assert str(fact) in found["answer"].replace(",", ""), found["answer"]
    assert found["calls"] > 20
    assert found["usage"]["cost_usd"] > 0


async def test_demo_says_that_the_model_is_scripted(folder):
    code, out, err = await jupyter_rlm(folder, "demo", "--plain")
    assert code == 0, err
    assert "scripted" in out
    assert "not a real bill" in out
    trajectory = re.search("^Trajectory: (.+)$", out, re.MULTILINE)[1]
    assert (folder / trajectory).stat().st_size < 1_000_000


async def test_doctor_reports_settings_with_masked_keys_and_a_kernel(folder):
    code, out, err = await jupyter_rlm(folder, "doctor", OPENAI_API_KEY=KEY, LLM_MODEL="mine")
    assert code == 0, out + err
    assert "api_key = sk-...abcd (environment variable OPENAI_API_KEY)" in out
    assert "model = mine (environment variable LLM_MODEL)" in out
    assert re.search(r"^ok +kernel: .* started in \d+\.\d+ s", out, re.MULTILINE)
    assert re.search(r"^(ok|note) +confinement of kernels: ", out, re.MULTILINE)
    assert "isolation of `local`: files: all of the user's" in out
    assert KEY not in out


async def test_doctor_tells_whether_the_extension_is_there(folder):
    found = folder / "jupyter" / "labextensions" / "@rlm-kernel" / "labextension"
    nowhere = {"JUPYTER_PREFER_ENV_PATH": "0", "JUPYTER_DATA_DIR": str(folder / "data")}
    _, out, _ = await jupyter_rlm(folder, "doctor", JUPYTER_PATH=str(folder / "jupyter"), **nowhere)
    assert f"JupyterLab extension: in {found.parents[1]}" not in out
    found.mkdir(parents=True)
    (found / "package.json").write_text("{}")
    code, out, _ = await jupyter_rlm(folder, "doctor", JUPYTER_PATH=str(folder / "jupyter"), **nowhere)
    assert code == 0
    assert f"ok    JupyterLab extension: in {found.parents[1]}" in out


async def test_doctor_fails_on_a_malformed_setting(folder):
    code, out, _ = await jupyter_rlm(folder, "doctor", MAX_DEPTH="deep")
    assert code == 1
    assert re.search(r"^fail +settings: MAX_DEPTH is 'deep'", out, re.MULTILINE)


@pytest.mark.parametrize(("model", "code"), [("root", 0), ("other", 1)])
async def test_doctor_asks_the_endpoint(folder, model, code):
    async with served(root=[DONE]) as server:
        found, out, _ = await jupyter_rlm(folder, "doctor", "--endpoint", *at(server, model=model))
    assert found == code
    assert "root" in out
