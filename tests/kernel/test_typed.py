"""Answers and replies of a shape that was asked for, in whole runs with real kernels."""

from __future__ import annotations

import json

import pytest
from pydantic import BaseModel

from rlm_kernel import RLM, ScriptedModel
from rlm_kernel.errors import ConfigError
from rlm_kernel.events import RunFinished

YEAR = {"type": "object", "properties": {"year": {"type": "integer"}}, "required": ["year"]}


class Born(BaseModel):
    year: int


def block(code):
    return f"```repl\n{code}\n```"


async def play(*replies, output=None, context="ctx", sub=(), readers=(), **options):
    root = ScriptedModel(list(replies), name="root")
    sub_model = ScriptedModel(list(sub), name="sub")
    rlm = RLM(model=root, sub_model=sub_model, spare_kernels=0, **options)
    return await rlm.acompletion("What?", context, output=output, readers=readers), sub_model


def last_said(answer):
    return [message["content"] for message in answer.messages if message["role"] == "user"][-1]


# Answers --------------------------------------------------------------------------------------------


async def test_the_value_is_what_was_asked_for_and_the_prompt_says_so():
    events = []
    answer, _ = await play(
        block("born = {'year': 1815}"), "FINAL_VAR(born)", output=Born, readers=[events.append]
    )
    assert answer.status == "answered"
    assert answer.value == Born(year=1815)
    assert answer.to_json()["value"] == {"year": 1815}
    assert json.dumps(Born.model_json_schema()) in answer.messages[0]["content"]
    assert [event.value for event in events if isinstance(event, RunFinished)] == [{"year": 1815}]


@pytest.mark.parametrize(
    "given",
    [
        block("FINAL({'year': 1815})"),
        block("FINAL('{\"year\": 1815}')"),
        block("answer['content'] = {'year': 1815}\nanswer['ready'] = True"),
        block("import numpy\nFINAL({'year': numpy.int64(1815)})"),
        block("import dataclasses\n@dataclasses.dataclass\nclass Born:\n    year: int\nFINAL(Born(1815))"),
        block("import pydantic\nclass Born(pydantic.BaseModel):\n    year: int\nFINAL(Born(year=1815))"),
        'FINAL({"year": 1815})',
        'FINAL(```json\n{"year": 1815}\n```)',
    ],
    ids=["value", "json", "dict", "numpy", "dataclass", "pydantic", "text", "fence"],
)
async def test_every_form_of_an_answer_is_understood(given):
    answer, _ = await play(given, given, output=YEAR)  # as text it is refused once, on turn 1
    assert (answer.status, answer.value) == ("answered", {"year": 1815}), answer.reason


async def test_texts_stay_texts_where_text_is_asked_for():
    answer, _ = await play(block("FINAL('1815')"), output={"type": "string"})
    assert answer.value == "1815"
    answer, _ = await play(block("FINAL('1815')"), output=int)
    assert answer.value == 1815


async def test_a_wrong_answer_is_sent_back_once_and_the_run_goes_on():
    answer, _ = await play(
        block("FINAL({'year': 'soon'})"),
        block("year = 1815"),
        block("FINAL({'year': year})"),
        output=YEAR,
    )
    assert (answer.status, answer.value, answer.iterations) == ("answered", {"year": 1815}, 3)
    second = [message["content"] for message in answer.messages if message["role"] == "user"][1]
    assert "Note: your answer was not taken, it does not satisfy the JSON schema:" in second
    assert "- $.year: 'soon' is not of type 'integer'" in second


@pytest.mark.parametrize("output", [YEAR, Born], ids=["schema", "pydantic"])
async def test_a_second_wrong_answer_fails_the_run_with_its_text_kept(output):
    events = []
    answer, _ = await play(
        block("FINAL({'year': 'soon'})"), block("FINAL('later')"), output=output, readers=[events.append]
    )
    assert answer.status == "failed"
    assert not answer
    assert answer.value is None
    assert answer.text == "later"
    assert "not of the shape asked for" in answer.reason
    assert "JSON" in answer.reason
    assert events[-1].status == "failed"


async def test_the_last_turn_can_be_repaired():
    answer, _ = await play(
        block("context"), block("FINAL(3)"), block("FINAL({'year': 3})"), output=YEAR, max_iterations=2
    )
    assert (answer.status, answer.value) == ("answered", {"year": 3})


async def test_what_is_no_json_is_told():
    answer, _ = await play(block("FINAL({1, 2})"), block("FINAL([1, 2])"), output=list[int])
    assert "- it has no JSON value" in last_said(answer)
    assert answer.value == [1, 2]


async def test_children_answer_as_they_like():
    answer, _ = await play(
        block("FINAL({'year': int(rlm_query('When?', 'part'))})"),
        sub=[block("FINAL('1815')")],
        output=YEAR,
        max_depth=2,
    )
    assert answer.value == {"year": 1815}


async def test_an_own_system_prompt_still_tells_of_the_shape():
    answer, _ = await play(block("FINAL(3)"), output=int, system_prompt="You are brief.")
    assert answer.messages[0]["content"].startswith("You are brief.\n\n# The answer")


async def test_no_shape_is_refused_before_a_request():
    root = ScriptedModel([])
    with pytest.raises(ConfigError, match="no JSON schema"):
        await RLM(model=root).acompletion("What?", "ctx", output={"type": 3})
    assert root.requests == []


def test_batch_and_completion_take_it_too():
    def script():
        return ScriptedModel([block("FINAL({'year': len(context)})")] * 2)

    with RLM(model=script(), spare_kernels=0) as rlm:
        answers = rlm.batch(
            [{"query": "q", "context": "abc", "output": Born}, {"query": "q", "context": "ab"}]
        )
        assert [answer.value for answer in answers] == [Born(year=3), {"year": 2}]
    with RLM(model=script(), spare_kernels=0) as rlm:
        assert rlm.completion("q", "abcd", output=Born).value == Born(year=4)


async def test_stream_takes_it_too():
    rlm = RLM(model=ScriptedModel([block("FINAL('3')")]), spare_kernels=0)
    events = [event async for event in rlm.stream("q", "abc", output=int)]
    assert events[-1].value == 3


# Sub-calls ------------------------------------------------------------------------------------------


async def test_a_cell_gets_values_and_pydantic_instances():
    answer, sub = await play(
        block(
            "from pydantic import BaseModel, field_validator\n"
            "class Born(BaseModel):\n"
            "    year: int\n"
            "    @field_validator('year')\n"
            "    @classmethod\n"
            "    def early(cls, year):\n"
            "        assert year < 2000, 'too late'\n"
            "        return year\n"
            "one = llm_query('1', schema={'type': 'integer'})\n"
            "two = llm_query('2', schema=Born)\n"
            "three = await allm_query('3', schema=Born)\n"
            "many = llm_query_batched(['4', '5'], schema=Born)\n"
            "FINAL([one, two.year, type(three).__name__, many[0].year, many[1].kind])"
        ),
        sub=["1", '{"year": 2}', '{"year": 3}', '{"year": 4}', '{"year": 2005}'],
    )
    assert answer.value == [1, 2, "Born", 4, "schema"], last_said(answer)
    assert sub.requests[1].schema["properties"]["year"]["type"] == "integer"


async def test_a_reply_that_stays_wrong_is_a_typed_error_in_the_cell():
    answer, sub = await play(
        block(
            "try: llm_query('q', schema={'type': 'integer'})\n"
            "except CallFailed as error: FINAL([error.kind, error.message])"
        ),
        sub=["none", "no"],
    )
    kind, message = answer.value
    assert kind == "schema"
    assert "'no' is not" in message or "no JSON" in message
    assert len(sub.requests) == 2


@pytest.mark.parametrize("schema", ["'text'", "int", "{'type': int}", "{'enum': ['x' * 200_000]}"])
async def test_what_is_no_schema_raises_in_the_cell(schema):
    answer, sub = await play(
        block(f"try: llm_query('q', schema={schema})\nexcept TypeError as error: FINAL(str(error))")
    )
    assert answer.value.startswith("schema "), last_said(answer)
    assert sub.requests == []


async def test_a_cell_learns_which_models_there_are():
    answer, _ = await play(
        block(
            "try: llm_query('q', model='huge')\nexcept CallFailed as error: one = error.message\n"
            "two = llm_query_batched(['q'], model='huge')[0].kind\n"
            "three = llm_query('q', model='root' if False else 'sub')\n"
            "FINAL([one, two, three])"
        ),
        sub=["fine"],
    )
    assert answer.value == ["no model 'huge'; there is root, sub", "bad_request", "fine"]
