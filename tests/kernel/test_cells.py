"""Cells in a real kernel: what is shown, what is kept, what is cut."""

from __future__ import annotations

import asyncio
import os

import pytest
from kernels import open_repl

from rlm_kernel.repl.bootstrap import GuestSettings


def texts(result, kind):
    return "".join(output.text for output in result.outputs if output.kind == kind)


async def test_the_last_expression_is_shown_as_jupyter_shows_it(repl):
    assert await repl.value("context.splitlines()") == "['one', 'two', 'three']"


async def test_streams_come_apart_and_in_order(repl):
    result = await repl.run("import sys\nprint('a')\nprint('b', file=sys.stderr)\nprint('c')")
    assert texts(result, "stdout") == "a\nc\n"
    assert texts(result, "stderr") == "b\n"


async def test_output_is_reported_while_the_cell_runs(repl):
    seen = asyncio.Event()
    running = asyncio.create_task(
        repl.run("print('now', flush=True)\nllm_query('wait')", on_output=lambda output: seen.set())
    )
    repl.delay = 60
    await asyncio.wait_for(seen.wait(), 20)
    assert not running.done()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_an_exception_keeps_earlier_variables_and_its_traceback_is_plain_text(repl):
    result = await repl.run("x = 41\n1/0")
    assert result.status == "error"
    error = result.outputs[-1]
    assert (error.kind, error.name, error.value) == ("error", "ZeroDivisionError", "division by zero")
    assert "\x1b" not in error.text
    assert "----> 2 1/0" in error.text
    assert await repl.value("x + 1") == "42"


async def test_a_syntax_error_is_an_error(repl):
    result = await repl.run("for for")
    assert (result.status, result.outputs[-1].name) == ("error", "SyntaxError")


async def test_functions_see_names_made_later(repl):
    await repl.run("def f():\n    return later")
    await repl.run("later = 5")
    assert await repl.value("f()") == "5"


async def test_top_level_await_works(repl):
    assert await repl.value("import asyncio\nawait asyncio.sleep(0, 'slept')") == "'slept'"


async def test_magics_and_shell_commands_work(repl):
    result = await repl.run("!echo from the shell")
    assert texts(result, "stdout").strip() == "from the shell"


async def test_output_of_subprocesses_is_seen_in_its_own_cell(repl):
    for number in range(5):
        result = await repl.run(f"import os\n_ = os.system('echo {number}')")
        assert texts(result, "stdout") == f"{number}\n"


async def test_names_are_bound_again_before_every_cell(repl):
    await repl.run("context = llm_query = FINAL = None")
    assert await repl.value("context[:3], llm_query('q')") == "('one', 'reply to q')"


async def test_variables_made_by_cells_are_listed_without_modules_and_own_names(repl):
    result = await repl.run("import json\n_hidden = 1\nfound = [1]\ndef f(): pass")
    assert result.variables == ("f", "found")
    assert "found: list of length 1" in await repl.value("SHOW_VARS()")


async def test_input_raises_at_once(repl):
    result = await repl.run("input('name? ')")
    assert result.outputs[-1].name == "RuntimeError"
    assert "nobody to answer input()" in result.outputs[-1].value


async def test_a_figure_comes_back_as_an_image(repl):
    pytest.importorskip("matplotlib")
    result = await repl.run("import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()")
    (figure,) = [output for output in result.outputs if output.kind == "display"]
    assert figure.data["image/png"].startswith("iVBOR")


async def test_a_table_comes_back_as_text(repl):
    pytest.importorskip("pandas")
    result = await repl.run("import pandas\npandas.DataFrame({'a': [1, 2]})")
    assert texts(result, "result").split() == ["a", "0", "1", "1", "2"]


SMALL = GuestSettings(head=100, tail=50, displays=3, image_bytes=1000)


@pytest.mark.parametrize(
    "code",
    [
        "print('<' + 'x' * 5000 + '>')",
        "import sys\nfor c in '<' + 'x' * 5000 + '>':\n    sys.stdout.write(c)\nprint()",
        'import os\n_ = os.system(\'printf "<"; head -c 5000 /dev/zero | tr "\\\\\\\\0" x; echo ">"\')',
        "import os\n_ = os.write(1, b'<' + b'x' * 5000 + b'>\\n')",
    ],
    ids=["one write", "many writes", "subprocess", "descriptor"],
)
async def test_streams_keep_head_and_tail_and_count_what_is_left_out(code):
    async with open_repl(settings=SMALL) as repl:
        result = await repl.run(code)
    text = texts(result, "stdout")
    assert text.startswith("<" + "x" * 99 + "\n... [4,853 characters left out] ...\n")
    assert text.endswith("x" * 48 + ">\n")


async def test_results_displays_and_tracebacks_are_cut():
    async with open_repl(settings=SMALL) as repl:
        result = await repl.run("'y' * 5000")
        assert len(texts(result, "result")) < 250
        assert "left out" in texts(result, "result")
        result = await repl.run("raise ValueError('z' * 100_000)")
        assert len(result.outputs[-1].text) + len(result.outputs[-1].value) < 1000
        result = await repl.run("from IPython.display import display\nfor i in range(10): display(i)")
        shown = [output.text for output in result.outputs]
        assert shown == ["0", "1", "2", "[more than 3 outputs in one cell: the rest is left out]"]
        result = await repl.run(
            "from IPython.display import Image\nimport os\n"
            "Image(data=b'\\x89PNG' + os.urandom(5000), format='png')"
        )
        assert "image/png" not in result.outputs[-1].data
        assert "too large" in result.outputs[-1].text


async def test_an_error_whose_text_fails_is_still_an_error(repl):
    result = await repl.run(
        "class Odd(Exception):\n    def __str__(self):\n        raise RuntimeError\nraise Odd"
    )
    assert result.status == "error"
    assert (await repl.run("1")).status == "ok"


async def test_the_environment_is_an_allow_list(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-environment")
    monkeypatch.setenv("SOME_TOKEN", "canary-token")
    async with open_repl(env={"EXTRA": "given"}) as repl:
        seen = await repl.value("import os\nsorted(os.environ.items())")
    assert "canary" not in seen
    assert "('EXTRA', 'given')" in seen


async def test_a_kernel_leaves_nothing_behind():
    async with open_repl(("context", "x")) as repl:
        pid = int(await repl.value("import os\nos.getpid()"))
        folder = repl.session._transport.folder
        assert not [name for name in os.listdir(folder) if name.startswith("context-")]
    assert not os.path.exists(folder)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize("code", ["", " \n", "# nothing"], ids=["empty", "space", "comment"])
async def test_a_cell_without_code_is_a_cell(repl, code):
    await repl.run("kept = 1")
    result = await repl.run(code)
    assert (result.status, result.outputs, result.variables) == ("ok", (), ("kept",))
    assert await repl.value("kept") == "1"


async def test_a_cell_within_a_cell_is_part_of_it(repl):
    result = await repl.run(
        "FINAL('outer')\n_ = get_ipython().run_cell('inner = llm_query(\"q\")')\n"
        "_ = get_ipython().run_cell('')\nprint(inner, llm_query('r'))"
    )
    assert (result.status, result.final.text, result.variables) == ("ok", "outer", ("inner",))
    assert texts(result, "stdout") == "reply to q reply to r\n"
    result = await repl.run("%%capture taken\nprint(llm_query('s'))\nFINAL('inner')")
    assert (result.final.text, result.outputs) == ("inner", ())
    assert await repl.value("taken.stdout") == "'reply to s\\n'"


@pytest.mark.parametrize(
    "code",
    [
        "globals()[5] = 1",
        "class Lazy:\n    @property\n    def __class__(self):\n        raise RuntimeError\nlazy = Lazy()",
        "import sys\nsys.stdout.close()\nsys.stderr.close()",
        "import io, sys\nsys.stdout = io.StringIO()",
        "import sys\nsys.stdout = sys.stderr = None",
        "import sys\ndel sys.stdout",
        "import os\nos.close(1)\nos.close(2)",
        "import os\nos.dup2(os.open(os.devnull, os.O_WRONLY), 1)",
        "%reset -f",
        "for name in list(globals()):\n    if not name.startswith('_'):\n        del globals()[name]",
        "exit()",
        "import os\nos.fork()\nNone",
        "import os\nif os.fork() == 0:\n    raise SystemExit",
        "import threading\ndef grow():\n    for i in range(200_000): globals()[f'n{i}'] = i\n"  # noqa: ISC004
        "threading.Thread(target=grow).start()",
    ],
    ids=[
        "a name that is no text",
        "a lazy object",
        "closed streams",
        "another stdout",
        "no streams",
        "deleted stdout",
        "closed descriptors",
        "a descriptor led elsewhere",
        "reset",
        "deleted names",
        "exit",
        "fork",
        "fork that exits",
        "names made by a thread",
    ],
)
async def test_what_a_cell_damages_does_not_end_the_repl(repl, code):
    # Some are errors of IPython's own, which is not to be repaired here.
    assert (await repl.run(code)).lost == ""
    result = await repl.run("print('shown', llm_query('q'))\ncontext[:3]")
    assert texts(result, "stdout") == "shown reply to q\n"
    assert texts(result, "result") == "'one'"


async def test_a_descriptor_led_elsewhere_gets_no_marks(repl, tmp_path):
    path = tmp_path / "out"
    await repl.run(f"import os\nos.dup2(os.open({os.fspath(path)!r}, os.O_WRONLY | os.O_CREAT), 1)\nNone")
    await repl.run("_ = os.write(1, b'mine')")
    assert path.read_bytes() == b"mine"
