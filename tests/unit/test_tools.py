"""The user's functions: their names, their signatures, their arguments, their results."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import datetime
import functools
import threading
from typing import Any, Literal, Optional

import pandas as pd
import pytest
from pydantic import BaseModel

from rlm_kernel import Tool
from rlm_kernel.errors import CallError, ConfigError
from rlm_kernel.repl.base import ToolCall
from rlm_kernel.tools import MOST_THREADS, Toolbox, bind


class Order(BaseModel):
    item: str
    count: int = 1


def lookup(name: str, *years: int, limit: Optional[int] = None, **more: float) -> dict[str, Any]:  # noqa: UP045
    """Look a person up.

    In a book.
    """
    return {"name": name, "years": years, "limit": limit, "more": more}


async def call(function, *args, secrets=(), depth=0, **kwargs):
    box = Toolbox(bind({"tool": function}), secrets=secrets)
    return await box.prepare(ToolCall("tool", args, kwargs), depth)()


async def refusal(function, *args, **kwargs):
    with pytest.raises(CallError) as caught:
        await call(function, *args, **kwargs)
    return caught.value.kind, str(caught.value)


# Names and signatures -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["two words", "class", "_hidden", "print", "llm_query", "FINAL", "context", "CallFailed", "In", "ny"],
)
def test_a_name_that_has_a_meaning_is_refused(name):
    with pytest.raises(ConfigError, match="can't be the name of a tool") as caught:
        bind({name: lookup})
    assert caught.value.hint


def test_a_tool_and_the_twin_of_another_can_not_share_a_name():
    with pytest.raises(ConfigError, match="another 'abook'"):
        bind({"book": lookup, "abook": lookup})


def test_a_value_is_sent_to_contexts():
    with pytest.raises(ConfigError, match="no function but a list") as caught:
        bind({"prices": [1, 2]})
    assert "contexts=" in caught.value.hint


def test_a_context_of_the_same_name_is_refused():
    box = Toolbox(bind({"book": lookup}))
    box.check_contexts(["report"])
    for name in ("book", "abook"):
        with pytest.raises(ConfigError, match="both a context and a tool"):
            box.check_contexts([name])


def test_a_signature_that_can_not_be_read_or_checked_is_refused():
    def late(x: NotDefinedHere):  # noqa: F821
        return x

    def frame(x: pd.DataFrame):
        return x

    for function, words in ((late, "NotDefinedHere"), (frame, "DataFrame"), (min, "signature")):
        with pytest.raises(ConfigError, match=words):
            bind({"tool": function})


def described(function):
    ((signature, description),) = Toolbox(bind({"tool": function})).described(0)
    return signature, description


def test_the_model_is_told_signature_and_docstring():
    assert described(lookup) == (
        "tool(name: str, *years: int, limit: Optional[int] = None, **more: float) -> dict[str, Any]",
        "Look a person up.\n\n  In a book.",
    )


def test_every_kind_of_parameter_is_shown():
    def plain(a, /, b: Literal["x.y", datetime.date] = 2, *, c: list[datetime.date] | None = None):
        return a, b, c

    assert described(plain) == (
        "tool(a, /, b: Literal['x.y', date] = 2, *, c: list[date] | None = None)",
        "(no description)",
    )


def test_a_description_takes_the_place_of_a_docstring():
    assert described(Tool(lookup, description="Reads the book."))[1] == "Reads the book."
    assert described(lambda: None)[1] == "(no description)"
    assert described(functools.partial(lookup, "Ada"))[1].startswith("Look a person up.")


def test_the_fields_of_an_object_are_described():
    def order(order: Order) -> str:
        """Order something."""
        return order.item

    signature, description = described(order)
    assert signature == "tool(order: Order) -> str"
    assert '"required": ["item"]' in description


# Arguments ------------------------------------------------------------------------------------------


async def test_arguments_arrive_as_the_signature_says():
    found = await call(lookup, "Ada", 1815, 1852, limit=3, weight=2)
    assert found == {"name": "Ada", "years": [1815, 1852], "limit": 3, "more": {"weight": 2.0}}


@pytest.mark.parametrize(
    ("args", "kwargs", "words"),
    [
        ((), {}, "missing a required argument: 'name'"),
        ((3,), {}, "argument 'name': Input should be a valid string"),
        (("Ada", "1815"), {}, "argument 'years': Input should be a valid integer"),
        (("Ada",), {"limit": "3"}, "argument 'limit': Input should be a valid integer"),
        (("Ada",), {"weight": None}, "argument 'more': Input should be a valid number"),
        (("Ada",), {"name": "Bo"}, "multiple values for argument 'name'"),
    ],
)
async def test_wrong_arguments_are_refused_before_the_call(args, kwargs, words):
    kind, said = await refusal(lookup, *args, **kwargs)
    assert kind == "bad_request"
    assert words in said
    assert said.endswith(
        "It takes tool(name: str, *years: int, limit: Optional[int] = None, **more: float) -> dict[str, Any]"
    )


async def test_models_dates_and_literals_are_made_of_json():
    @dataclasses.dataclass
    class Point:
        x: int

    def show(order: Order, day: datetime.date, place: Point, kind: Literal["a", "b"] = "a"):
        return [type(each).__name__ for each in (order, day, place, kind)]

    # The annotations are texts here, whose names `show` can't see: given as they would be elsewhere.
    show.__annotations__ = {"order": Order, "day": datetime.date, "place": Point, "kind": Literal["a", "b"]}
    assert await call(show, {"item": "tea"}, "2026-01-02", {"x": 1}) == ["Order", "date", "Point", "str"]
    kind, said = await refusal(show, {"count": 1}, "2026-01-02", {"x": 1})
    assert (kind, "argument 'order': item: Field required" in said) == ("bad_request", True)
    assert (
        "Input should be 'a' or 'b'" in (await refusal(show, {"item": "t"}, "2026-01-02", {"x": 1}, "c"))[1]
    )


async def test_an_unknown_name_is_told_the_others():
    with pytest.raises(CallError, match="no tool 'nope'; there is tool"):
        Toolbox(bind({"tool": lookup})).prepare(ToolCall("nope"), 0)


async def test_children_get_what_is_marked_for_them():
    box = Toolbox(bind({"mine": lookup, "ours": Tool(lookup, children=True)}))
    assert [name for name, _ in box.stubs(0)] == ["mine", "ours"]
    assert [name for name, _ in box.stubs(1)] == ["ours"]
    with pytest.raises(CallError, match="no tool 'mine'; there is ours"):
        box.prepare(ToolCall("mine", ("Ada",)), 1)


# Calls and results ----------------------------------------------------------------------------------


async def test_sync_functions_run_in_threads_and_async_ones_on_the_loop():
    word = contextvars.ContextVar("word")
    word.set("carried")

    def where():
        return [threading.current_thread() is threading.main_thread(), word.get()]

    async def here():
        return [threading.current_thread() is threading.main_thread(), word.get()]

    class Callable:
        async def __call__(self):
            return await here()

    assert await call(where) == [False, "carried"]
    assert await call(here) == [True, "carried"]
    assert await call(Callable()) == [True, "carried"]
    assert await call(lambda: here()) == [True, "carried"]  # noqa: PLW0108  the lambda is what is tried
    assert await call(functools.partial(here)) == [True, "carried"]


async def test_results_are_json_values():
    frame = pd.DataFrame({"a": [1, 2]})
    assert await call(lambda: (Order(item="tea"), datetime.date(2026, 1, 2))) == [
        {"item": "tea", "count": 1},
        "2026-01-02",
    ]
    assert await call(lambda: {"sum": frame.a.sum(), "all": frame.a.to_numpy()}) == {"sum": 3, "all": [1, 2]}
    assert await call(lambda: "x" * 5_000_000) == "x" * 5_000_000
    assert await call(lambda: None) is None


async def test_other_results_are_refused_by_type():
    assert await refusal(lambda: pd.DataFrame({"a": [1]})) == (
        "tool",
        "tool() returned a DataFrame, which is no JSON value: return frame.to_dict('records')",
    )
    assert "returned a object, which is no JSON value" in (await refusal(object))[1]


async def test_what_a_function_raises_is_told_without_keys():
    def fail():
        raise KeyError("no user of key sk-canary-0123456789abcdefgh")

    def leave():
        raise SystemExit(3)

    assert await refusal(fail) == ("tool", "tool() raised KeyError: 'no user of key [redacted]'")

    async def leave_later():
        raise SystemExit(3)

    for function in (leave, leave_later):
        assert await refusal(function) == ("tool", "tool() raised RuntimeError: SystemExit: 3")


async def test_no_result_holds_a_secret():
    secret = 'canary"\\key'
    found = await call(lambda: {"env": f"KEY={secret}", secret: [secret]}, secrets=[secret])
    assert found == {"env": "KEY=[redacted]", "[redacted]": ["[redacted]"]}


async def test_a_function_that_hangs_is_left_behind():
    go = threading.Event()
    task = asyncio.create_task(call(go.wait))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go.set()


async def test_an_async_function_that_will_not_be_cancelled_is_left_behind(monkeypatch):
    monkeypatch.setattr("rlm_kernel.tools.GRACE_SECONDS", 0.01)
    go, begun, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def stubborn():
        begun.set()
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue
        ended.set()

    task = asyncio.create_task(call(stubborn))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not ended.is_set()
    go.set()
    await ended.wait()


async def test_threads_are_few_and_a_hung_one_keeps_its_place():
    go, count, most, lock = threading.Event(), 0, 0, threading.Lock()
    full = threading.Event()

    def work():
        nonlocal count, most
        with lock:
            count += 1
            most = max(most, count)
            if count == MOST_THREADS:
                full.set()
        go.wait()
        with lock:
            count -= 1

    box = Toolbox(bind({"tool": work}))
    tasks = [asyncio.create_task(box.prepare(ToolCall("tool"), 0)()) for _ in range(MOST_THREADS + 10)]
    await asyncio.to_thread(full.wait)
    for task in tasks[:5]:
        task.cancel()
    await asyncio.wait(tasks[:5])
    go.set()
    await asyncio.gather(*tasks[5:])
    assert most == MOST_THREADS
