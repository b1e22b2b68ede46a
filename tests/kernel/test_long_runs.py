"""Compaction near the model's window, and views of texts that are too large to load."""

from __future__ import annotations

import itertools
import os

import psutil
import pytest
from test_runs import block, said

from rlm_kernel import RLM, ModelOptions, ReplayModel, ScriptedModel
from rlm_kernel.context import Context
from rlm_kernel.errors import ContextLengthError, RequestRefusedError
from rlm_kernel.messages import message_text
from rlm_kernel.models.failures import refused
from rlm_kernel.repl.local import local_session
from rlm_kernel.trace.jsonl import Trajectory

SUMMARY = "summary for yourself"
WINDOW = 4_000


def asked_for_summary(request):
    return SUMMARY in message_text(request.messages[-1])


def chatty(turns, *, end="FINAL(len(transcript))", window=None):
    """A root whose turns print 2,000 characters each, and that ends with ``end`` after so many."""

    def reply(request):
        if window is not None and sum(len(message_text(each)) for each in request.messages) > 4 * window:
            raise ContextLengthError("context_length_exceeded", status=400)
        if asked_for_summary(request):
            reply.summaries += 1
            return f"Summary {reply.summaries}: all is well."
        reply.turn += 1
        return block(end) if reply.turn > turns else block(f"print('{reply.turn:04}' * 500)")

    reply.turn = reply.summaries = 0
    return reply


def conversations(root):
    """The requests between two compactions, with those for summaries left out."""
    found = [[]]
    for request in root.requests:
        if asked_for_summary(request):
            found.append([])
        else:
            found[-1].append(list(request.messages))
    return found


async def test_a_long_conversation_is_compacted_and_goes_on(tmp_path):
    events = []
    root = ScriptedModel(chatty(18), name="root")
    rlm = RLM(
        model=root,
        options=ModelOptions(context_window=WINDOW),
        max_iterations=20,
        system_prompt="Write code.",
        readers=[events.append],
    )
    path = tmp_path / "run.jsonl"
    answer = await rlm.acompletion("What?", "text", save=path)
    compactions = [event for event in events if event.type == "compacted"]
    assert answer
    assert len(compactions) >= 2
    # The whole conversation so far was in the REPL, and all of it is in the answer.
    assert answer.value == 2 * compactions[-1].turn
    assert len(answer.messages) == 2 + 18 * 2 + 1
    assert [text for text in said(answer) if "0001" in text]
    parts = conversations(root)
    assert len(parts) == len(compactions) + 1
    for part in parts:
        for earlier, later in itertools.pairwise(part):
            assert later[: len(earlier)] == earlier
    for before, after, event in zip(parts, parts[1:], compactions, strict=False):
        system, first, summary, note, *last = after[0]
        assert [system, first] == before[0][:2]
        assert summary["role"] == "assistant"
        assert summary["content"].startswith("Summary")
        assert "`transcript`" in note["content"]
        assert [each["role"] for each in last] == ["assistant", "user"]
        assert list(event.messages) == after[0]
        assert event.tokens > 0.85 * WINDOW
    # A request for a summary begins with the conversation so far: only a compaction misses the cache.
    for number, request in enumerate(root.requests):
        if asked_for_summary(request):
            assert list(request.messages[:-3]) == list(root.requests[number - 1].messages)
    assert max(sum(len(message_text(m)) for m in r.messages) for r in root.requests) < 4 * WINDOW
    await the_trajectory_replays(path, answer)


async def the_trajectory_replays(path, answer):
    assert Trajectory.load(path).events[-1].text == answer.text
    replay = ReplayModel(path)
    options = ModelOptions(context_window=WINDOW)
    again = await RLM(model=replay, options=options, system_prompt="Write code.").acompletion("What?", "text")
    assert (again.text, again.iterations) == (answer.text, answer.iterations)
    assert replay.divergences == ()


async def test_a_conversation_that_the_endpoint_finds_too_long_is_compacted_once():
    root = ScriptedModel(chatty(12, window=3_000), name="root")
    answer = await RLM(model=root, system_prompt="Write code.").acompletion("What?", "text")
    assert answer
    assert "`transcript`" in message_text(root.requests[-1].messages[3])


async def test_a_turn_that_outgrows_the_window_at_once_is_shortened_for_the_summary():
    """The endpoint refuses the whole conversation, so its summary is made from a shorter one."""
    scripted = chatty(12, window=WINDOW)

    def reply(request):
        if len(request.messages) == 6 and "Summary" not in message_text(request.messages[2]):
            return block("print('x' * 13_000)")
        return scripted(request)

    root = ScriptedModel(reply, name="root")
    rlm = RLM(model=root, options=ModelOptions(context_window=WINDOW), system_prompt="Write code.")
    answer = await rlm.acompletion("What?", "text")
    assert answer
    summary = next(request for request in root.requests if asked_for_summary(request))
    assert any("characters left out" in message_text(each) for each in summary.messages[2:])


async def test_when_no_compaction_helps_the_run_fails_and_says_why():
    def reply(request):
        if asked_for_summary(request):
            return "short"
        if len(request.messages) > 4:
            raise ContextLengthError("400: too long", status=400)
        return block("print(1)")

    root = ScriptedModel(reply)
    answer = await RLM(model=root).acompletion("What?", "text")
    assert (answer.status, answer.reason) == ("failed", "400: too long")
    assert sum(map(asked_for_summary, root.requests)) == 1


async def test_a_first_request_that_is_too_long_fails_at_once():
    answer = await RLM(model=ScriptedModel([ContextLengthError("400: too long")])).acompletion(
        "What?", "text"
    )
    assert (answer.status, answer.total_calls) == ("failed", 1)


async def test_compaction_can_be_switched_off():
    root = ScriptedModel(chatty(6, end="FINAL('transcript' in globals())"))
    options = ModelOptions(context_window=WINDOW)
    answer = await RLM(model=root, options=options, compact_at=None).acompletion("What?", "text")
    assert answer.value is False
    assert not any(map(asked_for_summary, root.requests))


async def test_a_variable_of_the_model_is_not_overwritten():
    scripted = chatty(9, end="FINAL([transcript, len(transcript_1)])")

    def reply(request):
        return block("transcript = 'mine'") if len(request.messages) == 2 else scripted(request)

    options = ModelOptions(context_window=WINDOW)
    answer = await RLM(model=ScriptedModel(reply), options=options, system_prompt="Write code.").acompletion(
        "What?", "t"
    )
    assert answer.value[0] == "mine"
    assert answer.value[1] > 8


def test_the_endpoints_error_has_a_type_of_its_own():
    body = '{"error": {"message": "maximum context length is 8192", "code": "context_length_exceeded"}}'
    failure = refused(400, {}, body, place="x", secrets=())
    assert failure.kind is ContextLengthError
    assert issubclass(ContextLengthError, RequestRefusedError)


# Lazy views -----------------------------------------------------------------------------------------


async def test_a_text_above_the_set_size_is_a_view():
    text = "é line\n" * 5_000
    events = []
    root = ScriptedModel(
        [
            block("repr(context)[:12], type(context).__name__"),
            block("n = len(context), context[-5:], context.count('é'), context.search('line').start()"),
            block("r = llm_query('Read: ' + context[:6])\nc = rlm_query('How long?', context)"),
            block("FINAL([list(n), r, c])"),
        ],
        name="root",
    )
    sub = ScriptedModel(lambda request: f"<{len(request.messages[0]['content'])}>", name="sub")
    rlm = RLM(model=root, sub_model=sub, lazy_above=10_000, readers=[events.append])
    answer = await rlm.acompletion("What?", text)
    assert answer.value == [[35_000, "line\n", 5_000, 2], "<12>", f"<{len('How long?') + 35_000 + 11}>"]
    assert "LazyText" in said(answer)[1]
    assert "context: LazyText, a view of a text that is not loaded: str, 35,000 characters" in said(answer)[0]
    assert "`.search(pattern)`" in said(answer)[0]
    assert events[0].contexts[0].type == "LazyText"


async def test_small_texts_and_other_values_are_loaded_as_they_are():
    root = ScriptedModel([block("FINAL([type(a).__name__, type(b).__name__])")])
    rlm = RLM(model=root, lazy_above=1_000)
    answer = await rlm.acompletion("What?", contexts={"a": "short", "b": ["long"] * 1_000})
    assert answer.value == ["str", "list"]


async def test_a_lazy_view_outlives_its_kernel():
    root = ScriptedModel([block("import os; os._exit(1)"), block("FINAL(context[:3])")])
    answer = await RLM(model=root, lazy_above=10).acompletion("What?", "abc" * 100)
    assert answer.text == "abc"


@pytest.mark.skipif(not hasattr(os, "pread"), reason="memory is read as Linux and macOS tell it")
async def test_a_view_of_200_mb_keeps_the_kernel_small():
    line = "2026-01-01 12:00:00 Everything is as it should be, and nothing else happened.\n"
    text = line * (200_000_000 // len(line)) + "the needle\n"
    context = Context.of("context", text).lazy_above(1_000_000)

    async def unused(call):
        raise AssertionError(call)

    session = local_session()
    try:
        await session.start([])
        kernel = psutil.Process(session._transport._process.pid)
        small = kernel.memory_info().rss
        await session.load([context], {})
        code = "found = context.find('needle'), context.count('needle'), context.search(r'needl.').start()"
        result = await session.execute(f"{code}\nfound, len(context)", timeout=60, on_call=unused)
        place = len(text) - len("needle\n")
        assert result.outputs[0].text == f"(({place}, 1, {place}), {len(text)})"
        assert kernel.memory_info().rss - small < 50_000_000
    finally:
        await session.close()
