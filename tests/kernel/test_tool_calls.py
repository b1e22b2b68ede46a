"""The user's functions, called from real kernels."""

from __future__ import annotations

import asyncio
import io
import json
import threading

import pytest
from rich.console import Console

from rlm_kernel import RLM, Budget, ScriptedModel, Tool
from rlm_kernel.errors import ConfigError
from rlm_kernel.events import CallFinished, CallStarted
from rlm_kernel.repl.base import ToolCall
from rlm_kernel.repl.bootstrap import GuestSettings
from rlm_kernel.repl.local import LocalTransport
from rlm_kernel.repl.session import JupyterSession
from rlm_kernel.trace.console import ConsoleReader
from rlm_kernel.trace.jsonl import Trajectory


def block(code):
    return f"```repl\n{code}\n```"


def lookup(name: str, n: int = 1) -> dict:
    """Look a person up."""
    return {"name": name, "n": n}


async def double(x: float) -> float:
    return 2 * x


async def play(*replies, tools, per_call=None, sub=(), context="ctx", readers=(), save=None, **options):
    root = ScriptedModel(list(replies), name="root")
    sub_model = ScriptedModel(list(sub), name="sub")
    rlm = RLM(model=root, sub_model=sub_model, tools=tools, spare_kernels=0, **options)
    answer = await rlm.acompletion("What?", context, tools=per_call, readers=readers, save=save)
    return answer, root, sub_model


def said(answer):
    return [message["content"] for message in answer.messages if message["role"] == "user"]


# The wire -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [None, GuestSettings(control=False)], ids=["control", "stdin"])
async def test_arguments_arrive_and_results_come_back(settings):
    calls = []

    async def answer(call):
        calls.append(call)
        return [[*call.args, call.kwargs]]

    session = JupyterSession(LocalTransport(), settings or GuestSettings())
    try:
        await session.start([], [("double", "double(x)\n\nTwice.")])

        async def value(code):
            result = await session.execute(code, timeout=30, on_call=answer)
            assert result.status == "ok", result.outputs
            return "".join(output.text for output in result.outputs if output.kind == "result")

        assert (
            await value("double(1, 'two', [None], k={'n': 1.5})") == "[1, 'two', [None], {'k': {'n': 1.5}}]"
        )
        assert calls == [ToolCall("double", (1, "two", [None]), {"k": {"n": 1.5}})]
        assert await value("await adouble({'$frame': 0})") == "[{'$frame': 0}, {}]"
        assert await value("double('x' * 3_000_000)[0] == 'x' * 3_000_000") == "True"
        assert await value("double.__doc__, adouble.__name__") == "('double(x)\\n\\nTwice.', 'adouble')"
        assert (
            await value(
                "from concurrent.futures import ThreadPoolExecutor\n"
                "with ThreadPoolExecutor(8) as pool:\n    found = list(pool.map(double, range(20)))\n"
                "[each[0] for each in found] == list(range(20))"
            )
            == "True"
        )
        result = await session.execute("double = adouble = None", timeout=30, on_call=answer)
        assert result.variables == ("ThreadPoolExecutor", "found", "pool")
        assert await value("double(3)") == "[3, {}]"
    finally:
        await session.close()


async def test_what_is_no_json_never_leaves_the_cell():
    def never(x):
        raise AssertionError

    answer, *_ = await play(
        block("never(1, x=object())"),
        block("loop = []\nloop.append(loop)\nnever(loop)"),
        block("FINAL(1)"),
        tools={"never": never},
    )
    assert (
        "TypeError: never(): argument x can't be sent as JSON: a object is no JSON value" in said(answer)[1]
    )
    assert "TypeError: never(): argument 1 can't be sent as JSON: Circular" in said(answer)[2]


# Runs -----------------------------------------------------------------------------------------------


async def test_a_run_calls_tools_and_every_reader_sees_it(tmp_path):
    events, shown = [], io.StringIO()
    console = ConsoleReader(Console(file=shown, width=200), plain=True)
    answer, root, _ = await play(
        block("found = lookup('Ada', n=2)\nfour = double(2)"),
        block("import asyncio\nmore = await asyncio.gather(adouble(1.5), alookup('Bo'))"),
        block("FINAL([found, four, more])"),
        tools={"lookup": lookup},
        per_call={"double": Tool(double, description="Twice as much.")},
        readers=[events.append, console],
        save=tmp_path / "run.jsonl",
        budget=Budget(calls=3, tool_calls=4),
    )
    assert answer.status == "answered", answer.reason
    assert answer.value == [{"name": "Ada", "n": 2}, 4.0, [3.0, {"name": "Bo", "n": 1}]]
    assert (answer.total_calls, answer.usage.by_depth.keys()) == (3, {0})
    system = root.requests[0].messages[0]["content"]
    assert "- `lookup(name: str, n: int = 1) -> dict`: Look a person up." in system
    assert "- `double(x: float) -> float`: Twice as much." in system
    assert said(answer)[0].endswith("Left: 3 calls, 4 tool calls.")
    assert said(answer)[1].endswith("Left: 2 calls, 2 tool calls.")
    assert "double: 1 call in" in shown.getvalue()
    assert ": 3 calls, depth 0" in next(
        line for line in shown.getvalue().splitlines() if line.startswith("answered in")
    )
    kept = Trajectory.load(tmp_path / "run.jsonl", contexts=["ctx"]).events
    for stream in (events, kept):
        started = [event for event in stream if isinstance(event, CallStarted) and event.kind == "tool"]
        assert [event.tool for event in started[:2]] == ["lookup", "double"]
        assert started[0].messages[0]["content"] == 'lookup("Ada", n=2)'
        finished = {event.call: event for event in stream if isinstance(event, CallFinished)}
        assert json.loads(finished[started[0].call].text) == {"name": "Ada", "n": 2}


async def test_a_failed_call_raises_in_the_cell_and_is_told():
    def boom(x: int) -> int:
        raise LookupError(f"no {x}")

    answer, *_ = await play(
        block("boom('one')"),
        block("boom(1)"),
        block("try:\n    boom(2)\nexcept CallFailed as error:\n    FINAL([error.kind, error.message])"),
        tools={"boom": boom},
    )
    assert "CallFailed: [call failed, bad_request: boom() was not called: argument 'x'" in said(answer)[1]
    assert "CallFailed: [call failed, tool: boom() raised LookupError: no 1]" in said(answer)[2]
    assert answer.value == ["tool", "boom() raised LookupError: no 2"]


async def test_children_have_the_tools_that_are_for_them():
    answer, _, sub = await play(
        block("FINAL(rlm_query('Which?', 'part'))"),
        sub=[block("print('mine' in globals(), ours(n=3, name='x'))"), block("FINAL(ours('Bo'))")],
        tools={"mine": lookup, "ours": Tool(lookup, children=True)},
        max_depth=2,
    )
    assert answer.value == "{'name': 'Bo', 'n': 1}"
    texts = [message["content"] for message in sub.requests[-1].messages]
    assert "`ours(name: str" in texts[0]
    assert "mine" not in texts[0]
    assert "False {'name': 'x', 'n': 3}" in texts[-1]


async def test_the_cap_on_tool_calls_is_exact():
    done = []
    answer, *_ = await play(
        block(
            "kinds = []\nfor i in range(5):\n"
            "    try: note(i)\n    except CallFailed as error: kinds.append(error.kind)\nkinds"
        ),
        block("FINAL(budget()['tool_calls'])"),
        tools={"note": done.append},
        budget=Budget(tool_calls=3),
    )
    assert done == [0, 1, 2]
    assert "['budget', 'budget']" in said(answer)[1]
    assert answer.value == 0


async def test_the_other_caps_hold_for_tools_too():
    answer, *_ = await play(
        block("try: lookup('x')\nexcept CallFailed as error: FINAL(error.kind)"),
        tools={"lookup": lookup},
        budget=Budget(calls=1),
    )
    assert answer.value == "budget"


async def test_a_tool_that_hangs_does_not_hold_the_run_past_its_time():
    go = threading.Event()
    answer, *_ = await play(block("hang()"), tools={"hang": go.wait}, budget=Budget(seconds=2))
    assert answer.status == "timed_out"
    go.set()


async def test_a_tool_that_hangs_ends_with_its_cell():
    go = threading.Event()
    answer, *_ = await play(
        block("hang()"),
        block("FINAL(lookup('x')['name'])"),
        tools={"hang": go.wait, "lookup": lookup},
        cell_timeout=1,
    )
    assert answer.repl_history[0].status == "timed_out"
    assert answer.value == "x"
    go.set()


async def test_a_new_kernel_has_the_tools_again():
    answer, *_ = await play(
        block("import os\nos._exit(1)"), block("FINAL(lookup('x')['name'])"), tools={"lookup": lookup}
    )
    assert answer.value == "x"


async def test_tools_that_can_not_be_used_are_refused_before_a_request():
    with pytest.raises(ConfigError, match="no function but a dict"):
        RLM(model=ScriptedModel([]), tools={"prices": {}})
    with pytest.raises(ConfigError, match="a dict of name -> function"):
        RLM(model=ScriptedModel([]), tools=[lookup])
    root = ScriptedModel([])
    rlm = RLM(model=root, tools={"book": lookup})
    for options in ({"contexts": {"book": "x"}}, {"tools": {"print": lookup}}, {"tools": {"abook": lookup}}):
        with pytest.raises(ConfigError):
            await rlm.acompletion("What?", **options)
    assert root.requests == []


async def test_an_own_system_prompt_still_tells_of_the_tools():
    answer, *_ = await play(
        "FINAL(1)", "FINAL(1)", tools={"lookup": lookup}, system_prompt="You are brief.", context=None
    )
    system = answer.messages[0]["content"]
    assert system.startswith("You are brief.\n\n")
    assert "`lookup(name: str, n: int = 1) -> dict`" in system


async def test_runs_at_once_have_their_own_tools():
    async def one(number):
        answer, *_ = await play(block("FINAL(own())"), tools={"own": lambda: number})
        return answer.value

    assert await asyncio.gather(*(one(number) for number in range(3))) == [0, 1, 2]
