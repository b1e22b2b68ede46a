"""What the kernel `rlm-pyodide` keeps for a host whose connection loses messages."""

from __future__ import annotations

import json

import pytest

from rlm_kernel.kernels.pyodide import distant, unanswered
from rlm_kernel.kernels.pyodide.distant import Arrived
from rlm_kernel.kernels.pyodide.unanswered import Ended, Request, Unanswered


def envelope(id_, op="llm_query", **fields):
    return Request(json.dumps({"rlm": 1, "id": id_, "op": op, **fields}), [b"frame"], stdin=op != "post")


def following():
    found = Unanswered()
    found.followed = True
    return found


def ids(requests):
    return [json.loads(each.text)["id"] for each in requests]


def test_what_is_neither_answered_nor_known_is_lost():
    found = following()
    assert [found.asked(envelope(each)) for each in "abcd"] == list("abcd")
    found.answered("b")
    assert ids(found.lost(["c"])) == ["a", "d"]
    assert found.lost([])[0].buffers == [b"frame"]
    found.asked(envelope("e", "abandon", call="d"))
    assert ids(found.lost(["c", 7, None])) == ["a"]
    # Made again, it is still one.
    found.asked(envelope("a"))
    assert ids(found.lost("nonsense")) == ["c", "a"]
    found.clear()
    assert found.lost([]) == []


def test_nothing_is_kept_for_a_host_that_loses_nothing():
    found = Unanswered()
    assert found.asked(envelope("a")) == ""
    assert found.lost([]) == []


@pytest.mark.parametrize(
    "text",
    ["Name?", "", "[]", "7", '{"id": "a"}', '{"id": 7, "op": "x"}', "[" * 100_000, '{"op": "abandon"}'],
)
def test_what_is_no_request_is_not_made_again(text):
    found = following()
    assert found.asked(Request(text, [], stdin=True)) == ""
    assert found.lost([]) == []


def test_what_a_sandbox_floods_with_is_not_kept(monkeypatch):
    monkeypatch.setattr(unanswered, "MAX_KEPT", 20_000)
    found = following()
    for number in range(100):
        found.asked(envelope(str(number)))
    assert ids(found.lost([]))[-1] == "99"
    assert len(found.lost([])) < 20
    found.asked(envelope("large", prompt="x" * 20_000))
    assert ids(found.lost([])) == ["large"]


def test_how_cells_ended():
    found = following()
    found.asked(envelope("r", "cell", final={"text": "42"}))
    ended = Ended()
    ended.note("first", {"status": "ok", "payload": []}, found.report)
    ended.note("second", {"status": "error", "ename": "E", "evalue": "x" * 9000, "traceback": []}, "")
    assert ended.of("first")["report"]["final"] == {"text": "42"}
    assert ended.of("first")["status"] == "ok"
    assert ended.of("second") == {"status": "error", "ename": "E", "evalue": "x" * 2000, "report": None}
    for asked in ("third", "", None, [], {}):
        assert ended.of(asked) is None
    ended.note("third", {"status": "ok"}, "")
    assert ended.of("first") is None


def test_pieces_go_on_in_order_and_once(monkeypatch):
    arrived = Arrived()
    with pytest.raises(ValueError, match="a piece at 3 where 0 was due"):
        arrived.has("a", 3, 3)
    assert not arrived.has("a", 0, 0)
    assert not arrived.has("a", 0, 3)
    arrived.note("a", 3)
    assert arrived.has("a", 0, 3)
    assert not arrived.has("a", 3, 3)
    with pytest.raises(ValueError, match="a piece at 6 where 3 was due"):
        arrived.has("a", 6, 3)
    monkeypatch.setattr(distant, "MAX_NAMES", 2)
    for name in "bcd":
        arrived.note(name, 1)
    assert not arrived.has("a", 0, 3)
