"""Model options on the command line: a GGUF file, the Responses API, direct calls, the estimate."""

import json

import pytest
from test_cli import jupyter_rlm
from tinygguf import write_tiny_gguf

from rlm_kernel.models.scripted import ScriptedModel
from rlm_kernel.models.server import ScriptedServer


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "text.txt").write_text("alpha beta\nword gamma\nword\n" * 10, encoding="utf-8")
    return tmp_path


async def test_a_gguf_file_needs_no_key(folder):
    write_tiny_gguf(folder / "tiny.gguf")
    code, out, err = await jupyter_rlm(
        folder, "run", "--gguf", "tiny.gguf", "--context", "text.txt", "--plain", "--no-save", "How many?"
    )
    # The prompt is longer than what this model takes: llama.cpp was there and said so.
    assert code == 6
    assert "exceeds the available context size (512 tokens)" in err
    assert "gguf:tiny.gguf" in out


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--gguf", "none.gguf"), "none.gguf can't be read"),
        (("--gguf", "text.txt"), "text.txt is no GGUF file"),
        (("--gguf", "text.txt", "--model", "m"), "not allowed with"),
        (("--model", "m", "--api", "soap"), "'soap' is not chat or responses"),
        (("--model", "m", "--direct-below", "0"), "whole number of at least 1"),
    ],
)
async def test_unusable_options_are_told(folder, args, says):
    code, _, err = await jupyter_rlm(folder, "run", *args, "--context", "text.txt", "How many?")
    assert (code, says in err) == (2, True), err


async def test_a_direct_call_by_responses_with_its_estimate(folder):
    model = ScriptedModel(lambda request: "Twenty.", name="m")
    async with ScriptedServer({"m": model}) as server:
        options = ["--model", "m", "--base-url", server.base_url, "--api", "responses", "--price", "m=10/10"]
        code, out, err = await jupyter_rlm(
            folder, "run", *options, "--direct-below", "500", "--context", "text.txt", "--plain", "How many?"
        )
        assert code == 0, err
        assert [request.api for request in server.requests] == ["responses"]
        lines = out.splitlines()
        estimates = [
            number for number, line in enumerate(lines) if line.startswith("estimate: about 70 tokens")
        ]
        assert len(estimates) == 2
        assert lines[estimates[0]].endswith("one direct call, if it fits (window not known): about $0.0107")
        assert lines[estimates[1] - 1].startswith("answered in")
        code, out, _ = await jupyter_rlm(
            folder, "run", *options, "--direct-below", "500", "--context", "text.txt", "--json", "How many?"
        )
    answer = json.loads(out)
    assert (answer["answer"], answer["direct"], answer["estimate"]["tokens"]) == ("Twenty.", True, 70)
