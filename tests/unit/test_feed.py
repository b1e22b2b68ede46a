"""Events on their way to the panel: merged, numbered, short, without keys; the whole ones on request."""

import asyncio
import json
from itertools import pairwise

import pytest
import recorded_run

from rlm_kernel import events as ev
from rlm_kernel.history import SHORT_CHARS, History
from rlm_kernel.notebook.brief import WHOLE_CHARS, Whole
from rlm_kernel.notebook.feed import INTERVAL_SECONDS, TAIL_CHARS, Feed
from rlm_kernel.trace.redact import Redactor

CONTEXT = "lorem ipsum dolor sit amet " * 400
SECRET = "sk-canary-panel-0123456789"


def fed(events, *, redact=str):
    """Return the batches that ``events`` make where there is no event loop, and the feed."""
    batches = []
    feed = Feed(batches.append, redact)
    for event in events:
        feed.take(event)
    feed.flush()
    return batches, feed


def delta(text, call="c1"):
    return ev.CallDelta(run="r1", call=call, text=text)


def test_batches_are_numbered_and_a_snapshot_is_all_of_them():
    batches, feed = fed(recorded_run.run(CONTEXT))
    assert [batch["number"] for batch in batches] == list(range(len(batches)))
    sent = [event for batch in batches for event in batch["events"] if "tail" not in event]
    assert feed.snapshot() == {"number": len(batches) - 1, "events": sent}
    kinds = [event["type"] for event in sent]
    assert kinds[0] == "run_started"
    assert kinds[-1] == "run_finished"
    assert "message_added" not in kinds


async def test_a_burst_is_few_batches_with_all_of_it():
    loop, batches = asyncio.get_running_loop(), []
    done = asyncio.Event()

    def send(batch):
        batches.append(batch)
        if any(event.get("text") == "notice 999" for event in batch["events"]):
            done.set()

    feed = Feed(send, str)
    began = loop.time()
    feed.take(recorded_run.run(CONTEXT)[0])
    for number in range(1000):
        feed.take(delta(f"word {number} "))
        feed.take(ev.Notice(run="r1", text=f"notice {number}"))
    await done.wait()
    assert len(batches) <= 2 + (loop.time() - began) / INTERVAL_SECONDS
    sent = [event for batch in batches for event in batch["events"]]
    notices = [event["text"] for event in sent if event["type"] == "notice"]
    assert notices == [f"notice {number}" for number in range(1000)]
    assert sent[-1]["tail"].endswith("word 999 ")


async def test_batches_are_no_more_than_twenty_a_second():
    times = []
    feed = Feed(lambda _: times.append(asyncio.get_running_loop().time()), str)
    feed.take(recorded_run.run(CONTEXT)[0])
    while len(times) < 4:
        feed.take(delta("word "))
        await asyncio.sleep(0)
    # Loops' clocks are allowed to be a little early.
    assert all(after - before > INTERVAL_SECONDS * 0.9 for before, after in pairwise(times))


def test_the_end_is_sent_at_once():
    events = recorded_run.run(CONTEXT)
    batches = []
    feed = Feed(batches.append, str)
    for event in events:
        feed.take(event)
    assert batches[-1]["events"][-1]["type"] == "run_finished"


def test_what_is_being_written_is_a_tail_until_it_is_written():
    start, started = (
        recorded_run.run(CONTEXT)[0],
        ev.CallStarted(run="r1", call="c1", kind="root", turn=1, depth=0, model="big"),
    )
    batches, feed = fed([start, started, *(delta(f"word{number} ") for number in range(500))])
    assert feed.snapshot()["events"][-1] == batches[-1]["events"][-1]
    tail = batches[-1]["events"][-1]
    assert (tail["type"], tail["call"], len(tail["tail"])) == ("call_delta", "c1", TAIL_CHARS)
    assert tail["tail"].endswith("word499 ")
    feed.take(ev.CallFinished(run="r1", call="c1", text="all of it"))
    feed.flush()
    assert all("tail" not in event for event in feed.snapshot()["events"])


def test_rows_are_short_whatever_the_texts():
    events = recorded_run.run("x" * 1_000_000, batch=2)
    _, feed = fed(events)
    for event in feed.snapshot()["events"]:
        assert len(json.dumps(event)) < 1_200, event["type"]
    usage = next(event["usage"] for event in feed.snapshot()["events"] if event["type"] == "call_finished")
    assert usage == {
        "input_tokens": 1200,
        "output_tokens": 80,
        "cached_tokens": 600,
        "reasoning_tokens": 3,
        "cost_usd": "0.001",
    }


def test_an_unknown_price_stays_unknown():
    _, feed = fed(recorded_run.run(CONTEXT, cost=None))
    used = [event["usage"] for event in feed.snapshot()["events"] if event["type"] == "call_finished"]
    assert any("cost_usd" in each and each["cost_usd"] is None for each in used)


@pytest.mark.parametrize("cut", [0, 230])
def test_keys_do_not_reach_the_page(cut):
    hostile = "x" * cut + f" {SECRET} "
    redact = Redactor([SECRET])
    events = recorded_run.run(CONTEXT, hostile=hostile)
    spread = [delta(character) for character in hostile]
    batches, feed = fed([*events[:-1], *spread], redact=redact)
    whole = Whole(redact)
    for event in events:
        whole.take(event)
    shown = [whole.find(row) for row in ("root", "r1/1", "r1/2", "r1/3", "x1", "x2", "c3.2", "c3.1")]
    assert all(shown)
    everything = json.dumps([batches, feed.snapshot(), shown])
    assert SECRET not in everything
    assert "[redacted]" in everything
    # The end of a key that a cut or a tail begins with is no secret's either.
    assert SECRET[:20] not in everything


def test_whole_events_are_found_by_row():
    events = recorded_run.run(CONTEXT)
    whole = Whole(str)
    for event in events:
        whole.take(event)
    types = {
        row: [each["type"] for each in whole.find(row)] for row in ("root", "r1/1", "x1", "c3.0", "c4", "?")
    }
    assert types == {
        "root": ["run_started"],
        "r1/1": ["message_added", "message_added", "call_started", "call_finished"],
        "x1": ["cell_started", "cell_finished"],
        "c3.0": ["call_started", "call_finished"],
        "c4": ["call_started", "run_started", "call_finished"],
        "?": [],
    }
    prompt = whole.find("c3.0")[0]["messages"][0]["content"]
    assert prompt == next(e for e in events if getattr(e, "call", "") == "c3.0").messages[0]["content"]


def test_whole_events_are_cut_and_the_oldest_let_go():
    whole = Whole(str, held_chars=1_000_000)
    for number in range(4):
        text = f"{number} " + "x" * 400_000
        message = {"role": "user", "content": text}
        whole.take(
            ev.CallStarted(
                run="r1", call=f"c{number}", kind="llm_query", turn=1, depth=1, model="m", messages=(message,)
            )
        )
    assert whole.find("c0") == []
    content = whole.find("c3")[0]["messages"][0]["content"]
    assert content.startswith("3 x")
    assert "200,002 characters are left out here" in content
    assert len(content) < WHOLE_CHARS + 100


def test_late_readers_get_the_history():
    emitter = ev.Emitter()
    history = History(emitter, held_chars=100_000)
    events = recorded_run.run("y" * 200_000, batch=2)
    for event in events[:-1]:
        emitter.emit(event)
    late = []
    history.join(late.append)
    emitter.emit(events[-1])
    kept = [each for each in events if not isinstance(each, ev.CallDelta | ev.CellOutput)]
    assert [each.type for each in late] == [each.type for each in kept]
    prompts = [
        each.messages[0]["content"] for each in late if isinstance(each, ev.CallStarted) and each.messages
    ]
    assert len(prompts[0]) == SHORT_CHARS
    assert [getattr(each, "text", "") for each in late][-1] == events[-1].text
