"""Runs whose answers are to come with quotes: scripted models, real kernels."""

from __future__ import annotations

import json

import pytest

from rlm_kernel import RLM, Budget, ScriptedModel
from rlm_kernel.evidence import LOOSE, NOT_FOUND, SHORT
from rlm_kernel.trace.jsonl import Trajectory

TEXT = "one line here\nthe gate is red today\nthe gate is blue tomorrow\n"


def block(code):
    return f"```repl\n{code}\n```"


async def play(
    *replies, context=TEXT, events=None, cite=True, query="Which gate is it?", save=None, **options
):
    root = ScriptedModel(list(replies), name="root")
    sub = ScriptedModel(lambda request: "the sub-model said this", name="sub")
    readers = [] if events is None else [events.append]
    async with RLM(model=root, sub_model=sub, spare_kernels=0, readers=readers, **options) as rlm:
        return await rlm.acompletion(query, context, cite=cite, save=save), root


def notices(events):
    return [event.text for event in events if event.type == "notice"]


@pytest.mark.parametrize(
    "reply",
    [
        block("FINAL('red', quotes=[lines[1], 'the gate is green'])"),
        block("found = 'red'\nFINAL_VAR('found', quotes=(lines[1], 'the gate is green'))"),
        block(
            "answer['content'] = 'red'\nanswer['quotes'] = [{'quote': lines[1]}, 'the gate is green']\n"
            "answer['ready'] = True"
        ),
        'FINAL(red)\nQUOTES:\n- "the gate is red today"\n- "the gate is green"',
        'FINAL("red", quotes=["the gate is red today", "the gate is green"])',
        "FINAL(red, quotes=picked)",
        "FINAL_VAR(colour, quotes=picked)",
    ],
)
async def test_ways_to_give_quotes(reply):
    look = block(
        "lines = context.splitlines()\npicked = [lines[1], 'the gate is green']\ncolour = 'red'\nlines"
    )
    answer, _ = await play(look, reply)
    assert (answer.status, answer.text) == ("answered", "red")
    assert [(each.verified, each.line, each.reason) for each in answer.evidence] == [
        (True, 2, ""),
        (False, None, NOT_FOUND),
    ]


async def test_one_reminder_then_the_answer_stands():
    events = []
    answer, root = await play(block("1"), "FINAL(red)", "FINAL(red)", max_iterations=2, events=events)
    assert (answer.status, answer.text, answer.evidence) == ("answered", "red", ())
    assert "without quotes" in root.requests[2].messages[-1]["content"]
    assert notices(events) == ["the answer comes without quotes"]


async def test_a_reminder_brings_the_quotes():
    answer, root = await play(block("1"), "FINAL(red)", block("FINAL('red', quotes=context[:13])"))
    assert [each.verified for each in answer.evidence] == [True]
    assert len(root.requests) == 3


async def test_an_answer_stands_if_the_reminder_costs_the_last_call():
    answer, _ = await play(block("1"), "FINAL(red)", "FINAL(red)", budget=Budget(calls=2))
    assert (answer.status, answer.text, answer.evidence) == ("answered", "red", ())


async def test_what_the_kernel_does_to_its_context_proves_nothing():
    answer, _ = await play(
        block("context += 'an invented line of mine'\nold = context\nold"),
        block(
            "FINAL('x', quotes=['an invented line of mine', 'Which gate is it?', 'red', 'the gate is\\nred'])"
        ),
    )
    assert [each.reason for each in answer.evidence] == [NOT_FOUND, NOT_FOUND, SHORT, LOOSE]
    assert not any(each.verified for each in answer.evidence)


async def test_a_childs_context_proves_nothing():
    events = []
    child = "only the child is given this text"
    root = ScriptedModel(
        [
            block(f"said = rlm_query('What is this?', {child!r})\nsaid"),
            block(f"FINAL(said, quotes=[{child!r}, context[:13]])"),
        ]
    )
    below = ScriptedModel([block("FINAL(context, quotes=[context])")])
    async with RLM(model=[root, below], max_depth=2, spare_kernels=0, readers=[events.append]) as rlm:
        answer = await rlm.acompletion("What is it?", TEXT, cite=True)
    assert answer.text == child
    assert [each.verified for each in answer.evidence] == [False, True]
    finished = [event for event in events if event.type == "run_finished"]
    assert [len(each.evidence) for each in finished] == [0, 2]
    assert "# Quotes" in root.requests[0].messages[0]["content"]
    assert "# Quotes" not in below.requests[0].messages[0]["content"]


@pytest.mark.parametrize("quotes", ["5", "[None]", "[b'bytes']"])
async def test_quotes_that_are_no_texts_are_told_to_the_model(quotes):
    answer, root = await play(block(f"FINAL('x', quotes={quotes})"), block("FINAL('x', quotes=context[:13])"))
    assert "text" in root.requests[1].messages[-1]["content"]
    assert "TypeError" in root.requests[1].messages[-1]["content"]
    assert [each.verified for each in answer.evidence] == [True]


async def test_without_cite_quotes_are_neither_asked_for_nor_shown():
    answer, root = await play(block("FINAL('x', quotes=context[:13])"), cite=False)
    assert (answer.status, answer.evidence) == ("answered", ())
    assert "quotes" not in root.requests[0].messages[0]["content"]


async def test_a_typed_answer_with_quotes():
    root = ScriptedModel([block("FINAL('red')"), block("FINAL({'colour': 'red'}, quotes=context[:13])")])
    schema = {"type": "object", "required": ["colour"]}
    async with RLM(model=root, spare_kernels=0) as rlm:
        answer = await rlm.acompletion("Which?", TEXT, output=schema, cite=True)
    assert answer.value == {"colour": "red"}
    assert [each.verified for each in answer.evidence] == [True]


async def test_evidence_in_the_trajectory_and_in_json(tmp_path):
    path = tmp_path / "run.jsonl"
    quote = "the gate is red today"
    answer, _ = await play(block(f"FINAL('red', quotes=[{quote!r}, 'the gate is green'])"), save=path)
    last = Trajectory.load(path, contexts=[TEXT]).events[-1]
    assert last.evidence == answer.evidence
    told = json.loads(json.dumps(answer.to_json()))["evidence"]
    assert [(each["text"], each["verified"]) for each in told] == [
        (quote, True),
        ("the gate is green", False),
    ]


async def test_refused_files_are_told_to_user_and_model(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT)
    (tmp_path / "b.pdf").write_bytes(b"%PDF-")
    events = []
    answer, root = await play(
        block("FINAL('red', quotes='the gate is red today')"), context=tmp_path, events=events
    )
    assert answer.evidence[0].place == "a.txt, line 2"
    assert "Refused: b.pdf" in root.requests[0].messages[1]["content"]
    assert "Refused: b.pdf" in notices(events)[0]
