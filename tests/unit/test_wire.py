"""Envelopes from kernels are guest data: parsed into types, or refused, and nothing else."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel.errors import CallError, WireError
from rlm_kernel.repl import wire
from rlm_kernel.repl.base import BudgetQuery, FinalAnswer, LLMQuery, ToolCall
from rlm_kernel.repl.uploads import Uploads

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
OPS = ["llm_query", "llm_query_batched", "rlm_query", "rlm_query_batched", "budget", "hello", "ready"]
OPS += ["cell", "put", "abandon", "tool", "other"]
KEYS = [
    "prompt",
    "prompts",
    "item",
    "items",
    "model",
    "schema",
    "final",
    "variables",
    "blob",
    "number",
    "frames",
    "name",
    "arguments",
]


def envelope(**fields):
    return json.dumps({"rlm": 1, "id": "i", **fields})


@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_any_text_is_parsed_or_refused(text):
    with contextlib.suppress(WireError):
        wire.parse(text)


@given(st.sampled_from(OPS), st.dictionaries(st.sampled_from(KEYS), JSON), st.lists(st.binary(), max_size=2))
def test_any_fields_are_parsed_or_refused(op, fields, buffers):
    with contextlib.suppress(WireError):
        wire.parse(envelope(op=op, **fields), buffers)


def test_deep_nesting_is_refused():
    with pytest.raises(WireError):
        wire.parse("[" * 200_000)


def test_a_query_with_frames():
    text = envelope(op="llm_query_batched", prompts=["a", {"$frame": 0}], model="m")
    body = wire.parse(text, [memoryview("lång".encode())]).body
    assert body == LLMQuery(("a", "lång"), batched=True, model="m")


def test_frames_as_base64_where_there_are_no_buffers():
    body = wire.parse(envelope(op="llm_query", prompt={"$frame": 0}, frames=["aGk="])).body
    assert body == LLMQuery(("hi",))


def test_parts_of_a_prompt():
    prompt = ["look", {"image": "AAAA", "mime": "image/png"}]
    (parts,) = wire.parse(envelope(op="llm_query", prompt=prompt)).body.prompts
    assert [part["type"] for part in parts] == ["text", "image_url"]
    with pytest.raises(WireError):
        wire.parse(envelope(op="llm_query", prompt=[{"image": "AAAA", "mime": "text/html"}]))


def test_a_final_answer_with_quotes():
    final = {"text": "1", "via": "FINAL", "quotes": ["a", "b" * 30_000, *["c"] * 2000]}
    found = wire.parse(envelope(op="cell", final=final, variables=[])).body.final.quotes
    assert found[:2] == ("a", "b" * wire.MAX_QUOTE)
    assert len(found) == wire.MAX_QUOTES
    for wrong in ("a", None, [1], [None], {"a": 1}):
        with pytest.raises(WireError, match="quotes"):
            wire.parse(envelope(op="cell", final={**final, "quotes": wrong}, variables=[]))


def test_a_final_answer():
    final = {"text": "[1]", "json": "[1]", "via": "FINAL"}
    body = wire.parse(envelope(op="cell", final=final, variables=["x"], draft="d")).body
    assert body == wire.CellReport(FinalAnswer("[1]", [1], "FINAL"), "d", ("x",))


def test_budget():
    assert wire.parse(envelope(op="budget")).body == BudgetQuery()


def test_a_call_of_a_tool():
    arguments = '{"args": [1, {"$frame": 0}], "kwargs": {"k": null}}'
    expected = ToolCall("lookup", (1, {"$frame": 0}), {"k": None})
    assert wire.parse(envelope(op="tool", name="lookup", arguments=arguments)).body == expected
    long = envelope(op="tool", name="lookup", arguments={"$frame": 0})
    assert wire.parse(long, [arguments.encode()]).body == expected
    many = json.dumps({"args": [0] * 2000, "kwargs": {}})
    for wrong in ("[]", '{"args": 1, "kwargs": {}}', "[" * 100_000, ["text"], many):
        with pytest.raises(WireError):
            wire.parse(envelope(op="tool", name="lookup", arguments=wrong))


def test_replies():
    assert wire.encode_reply("i", "v") == {"rlm": 1, "id": "i", "ok": True, "value": "v"}
    error = CallError("no", kind="budget")
    assert wire.encode_reply("i", error)["error"] == {"kind": "budget", "message": "no"}
    assert wire.slots(["a", error]) == [{"value": "a"}, {"error": {"kind": "budget", "message": "no"}}]


def test_a_context_of_no_known_format_is_a_bad_request_and_leaves_no_file(tmp_path):
    uploads = Uploads(str(tmp_path))
    info = {"type": "str", "size": 1, "unit": "characters"}
    item = {"query": "q", "context": {"format": "pickle", "frame": 0, "info": info}}
    items = wire.parse(envelope(op="rlm_query", item=item), [b"x"]).body
    with pytest.raises(CallError, match="pickle") as caught:
        uploads.attach(items, [])
    assert caught.value.kind == "bad_request"
    assert list(tmp_path.iterdir()) == []
