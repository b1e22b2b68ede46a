"""Whole runs: scripted models, real kernels."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import psutil
import pytest

from rlm_kernel import RLM, Budget, ScriptedModel
from rlm_kernel.errors import ConfigError, ContextError, EndpointError, InputError
from rlm_kernel.models.prices import Price

GOLDEN = Path(__file__).parents[1] / "golden"
SUB = {"prices": {"*": Price(Decimal(1), Decimal(2))}}


def block(code):
    return f"```repl\n{code}\n```"


def echo(request):
    return f"<{request.messages[-1]['content'][:40]}>"


async def play(
    *replies, context="alpha beta", query="What?", sub=echo, events=None, contexts=None, **options
):
    root = ScriptedModel(list(replies), name="root", **SUB)
    sub_model = ScriptedModel(sub, name="sub", **SUB)
    rlm = RLM(model=root, sub_model=sub_model, readers=[] if events is None else [events.append], **options)
    answer = await rlm.acompletion(query, None if contexts else context, contexts=contexts)
    return answer, root, sub_model


def said(answer, role="user"):
    return [message["content"] for message in answer.messages if message["role"] == role]


def kernels():
    """The processes of kernels below this one."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "-f" in process.cmdline():
                found.append(process.pid)
    return found


# Outcomes -------------------------------------------------------------------------------------------


async def test_a_run_looks_maps_and_answers():
    answer, *_ = await play(
        block("context[:5]"),
        block("replies = llm_query_batched(['a ' + context, 'b ' + context])\nreplies"),
        block("FINAL({'replies': replies})"),
    )
    assert answer
    assert answer.status == "answered"
    assert answer.value == {"replies": ["<a alpha beta>", "<b alpha beta>"]}
    assert str(answer) == answer.text == str(answer.value)
    assert (answer.iterations, answer.total_calls) == (3, 5)
    assert answer.usage.by_model["sub"].input_tokens == 6
    assert answer.usage.by_depth[0].total_tokens + answer.usage.by_depth[1].total_tokens == (
        answer.usage.total_tokens
    )
    assert answer.usage.cost_usd > 0
    assert [record.status for record in answer.repl_history] == ["ok", "ok", "ok"]
    assert "'alpha'" in said(answer)[1]
    assert "['<a alpha beta>', '<b alpha beta>']" in said(answer)[2]


async def test_the_transcript_is_the_recorded_one():
    answer, *_ = await play(
        "I look first.\n" + block("print(type(context).__name__, len(context))\ncontext[:5]"),
        block("1/0"),
        "No code here.",
        block("word = llm_query('first word of ' + context)\nword"),
        "FINAL_VAR(word)",
        query="What is the first word?",
    )
    text = "\n\n".join(f"[{message['role']}]\n{message['content']}" for message in answer.messages[1:])
    path = GOLDEN / "run.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text + "\n")
    assert text + "\n" == path.read_text()


async def test_root_messages_only_grow():
    _, root, _ = await play(block("1"), block("2"), block("FINAL(3)"))
    histories = [list(request.messages) for request in root.requests]
    for earlier, later in itertools.pairwise(histories):
        assert later[: len(earlier)] == earlier


@pytest.mark.parametrize("size", [1_000, 1_000_000])
async def test_the_root_prompt_does_not_grow_with_the_context(size):
    _, root, _ = await play(block("FINAL(1)"), context="line of text\n" * (size // 13))
    assert sum(len(message["content"]) for message in root.requests[0].messages) < 8_000


async def test_out_of_turns_asks_once_more_and_marks_the_answer():
    answer, root, _ = await play(block("1"), block("2"), "My best guess is 7.", max_iterations=2)
    assert not answer
    assert (answer.status, answer.text) == ("exhausted", "My best guess is 7.")
    assert "2 turns" in answer.reason
    assert len(root.requests) == 3
    assert "best answer" in said(answer)[-1]


async def test_out_of_turns_with_a_draft_needs_no_further_call():
    answer, root, _ = await play(block("answer['content'] = 'so far'"), max_iterations=1)
    assert (answer.status, answer.text, len(root.requests)) == ("exhausted", "so far", 1)


async def test_a_model_that_fails_for_good_ends_the_run_with_what_there_is():
    error = EndpointError("the endpoint answers 500", status=500, hint="try later")
    answer, *_ = await play(block("answer['content'] = 'half'"), error)
    assert (answer.status, answer.text) == ("failed", "half")
    assert answer.reason == "the endpoint answers 500 (try later)"


async def test_prose_and_empty_replies_are_told_how_to_go_on():
    answer, *_ = await play("only prose", "", block("FINAL(1)"))
    assert answer.text == "1"
    assert all("had no code" in text for text in said(answer)[1:3])


class CutShort(ScriptedModel):
    """A model whose first reply hits the output limit."""

    async def reply(self, request):
        reply = await super().reply(request)
        return replace(reply, finish_reason="length") if len(request.messages) == 2 else reply


async def test_the_open_block_of_a_cut_reply_is_not_run():
    model = CutShort(["```repl\nran = 1", block("FINAL('ran' in globals())")])
    answer = await RLM(model=model).acompletion("What?", "text")
    assert answer.value is False
    assert "cut at its length limit" in said(answer)[1]


# Answers that are judged ----------------------------------------------------------------------------


async def test_text_final_beside_code_is_refused():
    answer, *_ = await play(block("1 + 1") + "\nFINAL(3)", "FINAL(2)")
    assert answer.text == "2"
    assert "FINAL(...) was not taken" in said(answer)[1]


async def test_text_final_var_beside_code_is_taken_after_turn_one():
    answer, *_ = await play(block("1"), block("x = [1, 2]") + "\nFINAL_VAR(x)")
    assert (answer.value, answer.iterations) == ([1, 2], 2)


async def test_an_answer_before_anything_was_seen_is_refused_once():
    answer, *_ = await play("FINAL(42)", "FINAL(42)")
    assert (answer.text, answer.iterations) == ("42", 2)
    assert "before you had seen" in said(answer)[1]


async def test_without_a_context_the_first_reply_may_answer():
    answer, *_ = await play("FINAL(4)", context=None)
    assert (answer.text, answer.iterations) == ("4", 1)


async def test_an_answer_in_a_later_block_of_the_first_reply_is_refused_once():
    answer, *_ = await play(block("len(context)") + "\n" + block("FINAL('invented')"), block("FINAL('seen')"))
    assert (answer.text, answer.iterations) == ("seen", 2)


async def test_invented_output_is_dropped_and_what_follows_is_not_run():
    answer, *_ = await play(block("n = 1") + "\nREPL output:\n999\n" + block("FINAL(999)"), block("FINAL(n)"))
    assert answer.text == "1"
    assert "999" not in said(answer, "assistant")[0]
    assert "made up" in said(answer)[1]


async def test_blocks_after_a_failed_one_do_not_run():
    answer, *_ = await play(block("1/0") + "\n" + block("ran = True"), block("FINAL('ran' in globals())"))
    assert answer.value is False
    assert "Block 2 did not run" in said(answer)[1]


async def test_an_undefined_final_var_goes_on():
    answer, *_ = await play(block("found = 1"), "FINAL_VAR(fuond)", "FINAL_VAR(found)")
    assert answer.value == 1
    assert "no variable fuond" in said(answer)[2]


async def test_a_bare_variable_name_in_final_is_its_value():
    answer, *_ = await play(block("total = 12"), "FINAL(total)")
    assert answer.value == 12


# Recursion ------------------------------------------------------------------------------------------


def by_depth(request):
    """A root that splits the context between two children, and children that count."""
    first = request.messages[1]["content"]
    turn = sum(message["role"] == "assistant" for message in request.messages)
    if "list" in first.split("\n")[0]:
        return [
            block("halves = [context[: len(context) // 2], context[len(context) // 2 :]]"),
            block("counts = rlm_query_batched([('Count', ' '.join(half)) for half in halves])"),
            block("FINAL(sum(int(count) for count in counts))"),
        ][turn]
    return [block("words = context.split()"), block("FINAL(len(words))")][turn]


async def test_children_have_kernels_of_their_own_and_run_at_once():
    events = []
    model = ScriptedModel(by_depth, name="m", **SUB)
    rlm = RLM(model=model, max_depth=2, readers=[events.append])
    answer = await rlm.acompletion("How many?", [f"w{i}" for i in range(101)])
    assert answer.value == 101
    runs = {event.run: event for event in events if event.type == "run_started"}
    assert sorted(run.depth for run in runs.values()) == [0, 1, 1]
    assert len({event.kernel for event in events if event.type == "kernel_started"}) == 3
    children = [run for run in runs.values() if run.depth == 1]
    finished = [event for event in events if event.type == "run_finished"]
    assert finished[-1].run not in {child.run for child in children}
    both_started = max(event.seq for event in events if event.type == "run_started")
    assert both_started < min(event.seq for event in finished)
    # What the tree's usage says is what all its requests add up to.
    requests = [e for e in events if e.type == "call_finished" and e.usage.total_tokens]
    assert answer.usage.total_tokens == sum(e.usage.total_tokens for e in requests)
    assert answer.total_calls == len(requests) == 7


async def test_at_the_depth_limit_a_child_is_one_plain_call():
    events = []
    answer, _, sub = await play(block("r = rlm_query('Q', ['x', 'y'])"), block("FINAL(r)"), events=events)
    assert sub.requests[0].messages[0]["content"] == 'Q\n\nContext:\n["x", "y"]'
    assert {event.depth for event in events if event.type == "run_started"} == {0}
    assert answer.text.startswith("<Q")


async def test_a_model_of_the_plan_can_be_asked_for_by_name_and_no_other():
    answer, root, _ = await play(
        block("a = llm_query('to root', model='root')"),
        "unused",
        block("try: llm_query('q', model='gpt-9')\nexcept Exception as e: FINAL(str(e))"),
    )
    assert root.requests[1].messages[0]["content"] == "to root"
    assert answer.text == "[call failed, bad_request: no model 'gpt-9'; there is root, sub]"


async def test_models_by_depth():
    models = [ScriptedModel(by_depth, name=name, **SUB) for name in ("zero", "one")]
    rlm = RLM(model=models, max_depth=2)
    answer = await rlm.acompletion("How many?", ["a"] * 10)
    assert {depth: usage.total_tokens for depth, usage in answer.usage.by_depth.items()} == {
        0: answer.usage.by_model["zero"].total_tokens,
        1: answer.usage.by_model["one"].total_tokens,
    }


# Budgets --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budget", "cap"),
    [(Budget(calls=3), "calls"), (Budget(tokens=4_000), "tokens"), (Budget(usd=0.004), "usd")],
    ids=["calls", "tokens", "usd"],
)
async def test_a_budget_ends_the_run_with_the_draft(budget, cap):
    replies = [block("answer['content'] = 'part'\nr = llm_query('x' * 4000)")] * 20
    answer, *_ = await play(*replies, budget=budget)
    assert (answer.status, answer.text) == ("over_budget", "part")
    assert cap in answer.reason


async def test_the_cap_on_calls_is_exact_and_the_batch_says_why():
    answer, _, sub = await play(
        block("r = llm_query_batched(['q'] * 10)"),
        block("FINAL([x if x else x.kind for x in r])"),
        budget=Budget(calls=6),
    )
    assert answer.status == "over_budget"
    assert len(sub.requests) == 5


async def test_time_is_a_budget_too_and_holds_during_a_cell():
    answer, *_ = await play(
        block("answer['content'] = 'early'"), block("import time; time.sleep(60)"), budget=Budget(seconds=2)
    )
    assert (answer.status, answer.text) == ("timed_out", "early")
    assert answer.seconds < 20


async def test_consecutive_failures_are_a_budget():
    answer, *_ = await play(*[block("1/0")] * 9, budget=Budget(errors=3))
    assert (answer.status, answer.iterations) == ("over_budget", 3)


async def test_a_cell_can_ask_what_is_left():
    answer, *_ = await play(block("b = budget()"), block("FINAL(b)"), budget=Budget(calls=10, tokens=10**6))
    assert answer.value["calls"] == 9
    assert answer.value["usd"] is None
    assert "Left: 9 calls" in said(answer)[1]


async def test_a_usd_cap_without_a_price_is_refused_before_any_request():
    model = ScriptedModel(["unused"])
    with pytest.raises(ConfigError, match="price of scripted is not known"):
        RLM(model=model, budget=Budget(usd=1))
    assert model.requests == []


# Kernels --------------------------------------------------------------------------------------------


async def test_a_dead_kernel_is_replaced_and_the_model_told():
    answer, *_ = await play(
        block("mine = 1"), block("import os; os._exit(1)"), block("FINAL([context, 'mine' in globals()])")
    )
    assert answer.value == ["alpha beta", False]
    assert "kernel died" in said(answer)[2]
    assert "your variables, functions and imports are gone" in said(answer)[2]


async def test_a_stuck_cell_is_stopped_and_the_run_goes_on():
    answer, *_ = await play(
        block("kept = 5"), block("while True: pass"), block("FINAL(kept)"), cell_timeout=0.5
    )
    assert answer.value == 5
    assert "time limit" in said(answer)[2]


async def test_a_failing_subcall_is_the_cells_to_handle():
    def moody(request):
        if "bad" in request.messages[0]["content"]:
            raise EndpointError("overloaded", status=503)
        return "fine"

    answer, *_ = await play(
        block("r = llm_query_batched(['good', 'bad', 'good'])"),
        block("FINAL([str(x) for x in r])"),
        sub=moody,
    )
    assert answer.value == ["fine", "[call failed, model: overloaded]", "fine"]


async def test_a_bug_in_the_host_does_not_leak_its_text_into_the_cell():
    def broken(request):
        raise RuntimeError("canary-secret")

    answer, *_ = await play(
        block("try: llm_query('q')\nexcept Exception as e: m = str(e)"), block("FINAL(m)"), sub=broken
    )
    assert "internal" in answer.text
    assert "canary" not in answer.text


async def test_cancelling_a_run_leaves_no_kernel_and_no_request_behind():
    asked = asyncio.Event()
    stopped = asyncio.Event()

    async def hang(request):
        asked.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            stopped.set()
            raise
        return "never"

    events = []
    before = kernels()
    task = asyncio.create_task(play(block("llm_query('q')"), sub=hang, events=events))
    await asyncio.wait_for(asked.wait(), 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stopped.is_set()
    assert kernels() == before
    assert (events[-1].type, events[-1].status) == ("run_finished", "cancelled")


@pytest.mark.parametrize("delay", [0.03, 0.1, 0.5])
async def test_cancelling_while_the_kernel_starts_leaves_nothing(delay):
    before = kernels()
    model = ScriptedModel([block("1")], latency=60)
    task = asyncio.create_task(RLM(model=model).acompletion("What?", "text"))
    await asyncio.sleep(delay)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert kernels() == before


async def test_runs_at_once_do_not_mix():
    async def one(number):
        answer, *_ = await play(
            block(f"import time\nmine = {number}\nfor i in range(20): print({number}); time.sleep(0.005)"),
            block("r = llm_query(f'ask {mine}')"),
            block("FINAL([mine, r, context])"),
            context=f"context {number}",
        )
        assert Counter(said(answer)[1].split("\n"))[str(number)] == 20
        return answer.value

    values = await asyncio.gather(*(one(number) for number in range(6)))
    assert values == [[n, f"<ask {n}>", f"context {n}"] for n in range(6)]


async def test_figures_reach_a_vision_model_as_images():
    draw = block("import matplotlib.pyplot as plt\nplt.plot([1, 2]); plt.show()")
    answer, *_ = await play(draw, block("FINAL(1)"), vision=True)
    parts = said(answer)[1]
    assert [part["type"] for part in parts] == ["text", "image_url"]
    answer, *_ = await play(draw, block("FINAL(1)"))
    assert "not shown, this model reads text only" in said(answer)[1]


# The face -------------------------------------------------------------------------------------------


async def test_several_named_contexts():
    answer, *_ = await play(block("FINAL(old + new)"), contexts={"old": "a", "new": "b"})
    assert answer.text == "ab"
    assert "old: str" in said(answer)[0]


async def test_a_stream_yields_the_events_and_ends_with_the_answer():
    rlm = RLM(model=ScriptedModel([block("FINAL(5)")]))
    types = [event.type async for event in rlm.stream("What?", "text")]
    assert (types[0], types[-1]) == ("run_started", "run_finished")
    assert "call_delta" in types


async def test_leaving_a_stream_early_stops_the_run():
    before = kernels()
    rlm = RLM(model=ScriptedModel([block("import time; time.sleep(60)")]))
    events = rlm.stream("What?", "text")
    async for event in events:
        if event.type == "cell_started":
            break
    await events.aclose()
    assert kernels() == before


async def test_a_broken_reader_does_not_break_the_run():
    def broken(event):
        raise RuntimeError("reader")

    events = []
    rlm = RLM(model=ScriptedModel([block("FINAL(5)")]), readers=[broken, events.append])
    assert await rlm.acompletion("What?", "text")
    assert next(event.text for event in events if event.type == "notice").startswith("reader ")


async def test_synchronous_calls_work_where_a_loop_runs_already():
    with RLM(model=ScriptedModel(lambda request: block("FINAL(context)"))) as rlm:
        assert rlm.completion("What?", "one").text == "one"
        answers = rlm.batch([{"query": "What?", "context": text} for text in "abc"] + [{"query": " "}])
    assert [answer.text for answer in answers] == ["a", "b", "c", ""]
    assert (answers[3].status, answers[3].reason) == ("failed", "no question given")


async def test_a_trajectory_is_written(tmp_path):
    rlm = RLM(model=ScriptedModel([block("FINAL(5)")]))
    answer = await rlm.acompletion("What?", "text", save=tmp_path / "run.jsonl")
    assert answer.trace == str(tmp_path / "run.jsonl")
    assert '"run_finished"' in (tmp_path / "run.jsonl").read_text()


@pytest.mark.parametrize("bad", ["", b"", [], {}, object(), {"a": object()}])
async def test_a_context_that_cannot_be_used_is_refused_before_any_request(bad):
    model = ScriptedModel(["unused"])
    with pytest.raises(ContextError):
        await RLM(model=model).acompletion("What?", bad)
    assert model.requests == []


async def test_no_question_is_refused():
    with pytest.raises(InputError, match="no question"):
        await RLM(model=ScriptedModel([])).acompletion("  ", "text")


def test_an_unknown_backend_is_refused():
    with pytest.raises(ConfigError, match="no REPL named 'moon'"):
        RLM(model="m", base_url="http://127.0.0.1:1/v1", repl="moon")
