"""Contexts arrive in a kernel as equal values, whatever they are."""

from __future__ import annotations

import datetime
import decimal

import pytest
from kernels import open_repl

from rlm_kernel.context import Context, collect
from rlm_kernel.repl.local import LocalTransport

VALUES = {
    "text": "plain",
    "wide text": "ä\U0001f600\x00\n" * 1000,
    "lone surrogates": "a\ud800b",
    "bytes": bytes(range(256)) * 10,
    "list": ["a", 1, 2.5, None, True],
    "list of lists": [[1, [2, (3, 4)]], {"k": {5, 6}}],
    "dict": {"a.py": "x = 1\n", "b.py": ""},
    "odd keys": {1: "int", (2, 3): "tuple", None: "none", "$rlm": "tagged"},
    "set": {1, 2, 3},
    "tuple": (1, "two"),
    "number": 12345678901234567890,
    "dates": [datetime.date(2026, 1, 2), datetime.datetime(2026, 1, 2, 3, 4), decimal.Decimal("1.10")],
}


@pytest.mark.parametrize("name", VALUES)
async def test_a_value_arrives_equal(name):
    value = VALUES[name]
    async with open_repl(("context", value)) as repl:
        shown = await repl.value(f"import datetime\nfrom decimal import Decimal\ncontext == {value!r}")
        assert shown == "True"
        assert await repl.value("type(context).__name__") == repr(type(value).__name__)


async def test_a_data_frame_arrives():
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pandas.DataFrame({"city": ["Oslo", "Rome"], "n": [1, 2]}, index=[10, 20])
    async with open_repl(("context", frame)) as repl:
        shown = await repl.value("type(context).__name__, context.to_dict()")
    assert shown == str(("DataFrame", frame.to_dict()))


async def test_an_image_arrives_and_shows_itself(tmp_path):
    image = pytest.importorskip("PIL.Image").new("RGB", (40, 30), "red")
    image.save(tmp_path / "red.png")
    (context,) = collect(tmp_path / "red.png")
    async with open_repl(("context", context.value)) as repl:
        result = await repl.run("context")
        assert await repl.value("context.width, context.height, context.mime") == "(40, 30, 'image/png')"
    assert result.outputs[0].data["image/png"]


async def test_a_folder_arrives_as_texts(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.txt").write_text("A")
    (tmp_path / "b.txt").write_text("B")
    (context,) = collect(tmp_path)
    async with open_repl(("context", context.value)) as repl:
        assert await repl.value("context") == "{'b.txt': 'B', 'sub/a.txt': 'A'}"


@pytest.fixture
def shared(monkeypatch):
    """The names of the contexts that were loaded by themselves."""
    names = []
    share = LocalTransport.share

    async def noted(self, context):
        names.append(context.name)
        return await share(self, context)

    monkeypatch.setattr(LocalTransport, "share", noted)
    return names


async def test_small_texts_travel_with_the_first_cell(shared):
    texts = [("old", VALUES["wide text"]), ("new", VALUES["lone surrogates"])]
    async with open_repl(*texts, along_bytes=20_000) as repl:
        for _ in range(2):
            assert eval(await repl.value("old, new")) == tuple(text for _, text in texts)
            await repl.run("old = new = None")
    assert shared == []


@pytest.mark.parametrize("first", ["", "1/0", "1 +", "%%time\npass"])
async def test_a_text_is_there_whatever_the_first_cell_does(first, shared):
    async with open_repl(("context", "plain"), along_bytes=20_000) as repl:
        await repl.run(first)
        assert await repl.value("context") == "'plain'"
    assert shared == []


@pytest.mark.parametrize("value", [VALUES["list"], "x" * 101, "ä" * 26])
async def test_what_is_no_small_text_is_loaded_by_itself(value, shared):
    async with open_repl(("context", value), along_bytes=100) as repl:
        assert await repl.value(f"context == {value!r}") == "True"
    assert shared == ["context"]


async def test_texts_that_wait_for_the_first_cell_can_be_renamed(shared):
    async with open_repl(("context", "first"), along_bytes=100) as repl:
        await repl.session.load([Context.of("context", "second")], {"context": "context_0"})
        assert await repl.value("context_0, context") == "('first', 'second')"
    assert shared == ["context", "context"]


async def test_several_contexts_have_their_names():
    async with open_repl(("old", "a"), ("new", ["b"])) as repl:
        assert await repl.value("old, new, 'context' in globals()") == "('a', ['b'], False)"
        await repl.run("old = new = None")
        assert await repl.value("old, new") == "('a', ['b'])"


async def test_a_context_of_many_pieces_arrives_whole():
    text = "0123456789" * 3_000_000
    async with open_repl(("context", text)) as repl:
        shown = await repl.value("import hashlib\nlen(context), hashlib.sha256(context.encode()).hexdigest()")
    assert shown == str((len(text), Context.of("context", text).digest()))
