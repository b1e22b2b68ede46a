"""Replay: a recorded run answers the same requests again, and says so when asked anything else."""

from __future__ import annotations

import dataclasses
from decimal import Decimal

import pytest
from recorded_run import run, stamped, usage

from rlm_kernel import events as ev
from rlm_kernel.errors import RateLimitError, RequestRefusedError
from rlm_kernel.models.base import Model, Reply, Request
from rlm_kernel.models.replay import ReplayModel
from rlm_kernel.trace.jsonl import JsonlWriter, Trajectory

CONTEXT = " ".join(f"w{number * 7919 % 100_003}" for number in range(8000))
OPENING = [{"role": "system", "content": "You have a REPL."}, {"role": "user", "content": "How many words?"}]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "run.jsonl"
    with JsonlWriter(path) as writer:
        for event in run(CONTEXT):
            writer(event)
    return path


async def turn(model, messages):
    pieces = [piece async for piece in model.stream(Request(messages))]
    assert isinstance(pieces[-1], Reply)
    assert "".join(pieces[:-1]) == pieces[-1].text
    return pieces[-1]


def conversation(run_id="r1"):
    return [each.message for each in run(CONTEXT) if isinstance(each, ev.MessageAdded) and each.run == run_id]


async def test_a_file_replays_without_the_context(path):
    model = ReplayModel(path)
    assert isinstance(model, Model)
    assert model.name == "big"
    messages = conversation()
    for place in (2, 4, 6):
        reply = await turn(model, messages[:place])
        assert reply.text == messages[place]["content"]
    assert (reply.usage.input_tokens, reply.usage.cached_tokens) == (1200, 600)
    assert reply.usage.cost_usd == Decimal(0)
    assert (reply.model, reply.finish_reason) == ("big-1", "stop")
    started = [each for each in run(CONTEXT) if isinstance(each, ev.CallStarted) and each.batch]
    assert (await model.reply(Request(started[3].messages))).text == "103"
    with pytest.raises(RateLimitError, match="429 from the endpoint"):
        await model.reply(Request(started[2].messages))
    child = await turn(model, conversation("r2")[:1])
    assert child.text == f"FINAL({CONTEXT[1500:1800]})"
    assert model.divergences == ()


async def test_events_and_a_loaded_trajectory_replay_too(path):
    for source in (run(CONTEXT), Trajectory.load(path, CONTEXT)):
        model = ReplayModel(source, name="again")
        assert model.name == "again"
        assert (await turn(model, OPENING)).text.startswith("Let me look.")


async def test_a_root_turn_survives_other_outputs(path):
    model = ReplayModel(path)
    messages = conversation()[:4]
    messages[3] = {"role": "user", "content": "Output:\nanother number, 3.1 s left"}
    assert "Now in parts." in (await turn(model, messages)).text
    assert model.divergences == (
        "turn 2 is answered by turn 2 of run r1: its prompt differs from the recorded one",
    )
    messages[0] = {"role": "system", "content": "You have another REPL."}
    assert "Now in parts." in (await turn(model, messages)).text
    assert "opening messages" in model.divergences[1]


async def test_what_was_not_recorded_is_refused(path):
    model = ReplayModel(path)
    with pytest.raises(RequestRefusedError, match="'How many cats\\?'") as caught:
        await model.reply(Request([{"role": "user", "content": "How many cats?"}]))
    assert caught.value.hint
    other = [
        *OPENING,
        {"role": "assistant", "content": "my own words"},
        {"role": "user", "content": "Output: 1"},
    ]
    with pytest.raises(RequestRefusedError):
        await turn(model, other)
    # The question to a child is no request to a model, though its call has messages.
    with pytest.raises(RequestRefusedError):
        await model.reply(Request([{"role": "user", "content": "Which word is longest?"}]))


async def test_repeats_come_in_order_and_then_again():
    def stream():
        for number, text in enumerate(["one", "two", "three"]):
            message = {"role": "user", "content": "Again?"}
            yield ev.CallStarted(
                run="r1",
                call=f"c{number}",
                kind="llm_query",
                turn=1,
                depth=1,
                model="s",
                messages=(message,),
            )
            yield ev.CallFinished(run="r1", call=f"c{number}", text=text, usage=usage(1, 1))

    model = ReplayModel(stamped(stream()))
    request = Request([{"role": "user", "content": "Again?"}])
    assert [(await model.reply(request)).text for _ in range(4)] == ["one", "two", "three", "one"]


async def test_children_that_begin_alike_are_told_apart_by_what_they_were_asked():
    """Two runs with the same first reply: the second turn follows the opening messages."""

    def stream():
        for name in ("a", "b"):
            yield ev.MessageAdded(run=name, turn=0, message={"role": "user", "content": f"Part {name}"})
            for number, text in enumerate(["look", f"FINAL({name})"], 1):
                yield ev.CallStarted(
                    run=name, call=f"{name}{number}", kind="root", turn=number, depth=1, model="m"
                )
                yield ev.CallFinished(run=name, call=f"{name}{number}", text=text)
                yield ev.MessageAdded(run=name, turn=number, message={"role": "assistant", "content": text})
                yield ev.MessageAdded(run=name, turn=number, message={"role": "user", "content": "5 s left"})

    model = ReplayModel(stamped(stream()))
    for name in ("b", "a"):
        messages = [
            {"role": "user", "content": f"Part {name}"},
            {"role": "assistant", "content": "look"},
            {"role": "user", "content": "4 s left"},
        ]
        assert (await turn(model, messages)).text == f"FINAL({name})"


async def test_a_call_that_never_ended_or_failed_for_other_reasons_is_not_recorded():
    message = {"role": "user", "content": "Hello?"}
    started = ev.CallStarted(
        run="r1", call="c1", kind="llm_query", turn=1, depth=1, model="s", messages=(message,)
    )
    finished = ev.CallFinished(run="r1", call="c1", error="CancelledError")
    for events in ([started], [started, finished]):
        with pytest.raises(RequestRefusedError):
            await ReplayModel(stamped(events)).reply(Request([message]))
    answered = dataclasses.replace(finished, error=None, text="hello")
    assert (await ReplayModel([started, answered]).reply(Request([message]))).text == "hello"
