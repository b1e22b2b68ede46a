"""Sub-calls with a schema: checked, asked once more, counted; with and without an endpoint's help."""

from __future__ import annotations

import json
from itertools import count

import pytest

from rlm_kernel import Budget, OpenAIModel, ScriptedModel
from rlm_kernel.errors import CallError, RequestRefusedError
from rlm_kernel.events import CallFinished, CallStarted, Emitter
from rlm_kernel.ledger import Ledger
from rlm_kernel.messages import message_text
from rlm_kernel.models.plan import ModelPlan
from rlm_kernel.models.server import Fault, ScriptedServer
from rlm_kernel.repl.base import LLMQuery, ToolCall
from rlm_kernel.runs.subcalls import Place, SubCalls

YEAR = {"type": "object", "properties": {"year": {"type": "integer"}}, "required": ["year"]}
PLACE = Place("r1", 0, 1, "cell")


class Asked:
    """Sub-calls over models, and what became of them."""

    def __init__(self, *models, budget=None):
        self.events = []
        self.ledger = Ledger(budget)
        self.calls = SubCalls(ModelPlan(models), self.ledger, Emitter([self.events.append]), count(1), None)

    async def __call__(self, *prompts, schema=YEAR, model=None):
        query = LLMQuery(prompts, batched=len(prompts) > 1, schema=schema, model=model)
        answers = await self.calls.answer(query, PLACE)
        return answers if len(prompts) > 1 else answers[0]

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


async def test_the_value_comes_and_the_schema_goes_both_ways():
    model = ScriptedModel(['{"year": 1815}'])
    assert await Asked(model)("When was Ada born?") == {"year": 1815}
    (request,) = model.requests
    assert request.schema == YEAR
    text = message_text(request.messages[0])
    assert text.startswith("When was Ada born?\n\nReply with JSON only")
    assert json.dumps(YEAR) in text


async def test_a_wrong_reply_is_sent_back_once_with_what_is_wrong():
    model = ScriptedModel(['{"year": "soon"}', '{"year": 1815}'])
    asked = Asked(model)
    assert await asked("When?") == {"year": 1815}
    assert asked.ledger.calls == 2
    first, second = model.requests
    assert second.messages[:1] == first.messages
    assert [each["role"] for each in second.messages] == ["user", "assistant", "user"]
    assert "- $.year: 'soon' is not of type 'integer'" in message_text(second.messages[-1])
    assert [len(each.messages) for each in asked.of(CallStarted)] == [1, 3]
    assert asked.ledger.usage.total_tokens == sum(each.usage.total_tokens for each in asked.of(CallFinished))


async def test_a_second_wrong_reply_is_an_error():
    asked = Asked(ScriptedModel(["no idea", "1815?"]))
    error = await asked("When?")
    assert isinstance(error, CallError)
    assert error.kind == "schema"
    assert "it is no JSON" in str(error)
    assert "'1815?'" in str(error)


async def test_the_second_attempt_needs_a_budget():
    asked = Asked(ScriptedModel(["no idea", '{"year": 1}']), budget=Budget(calls=1))
    assert (await asked("When?")).kind == "budget"


async def test_in_a_batch_each_has_its_own_attempts():
    def reply(request):
        prompt = message_text(request.messages[0])
        again = len(request.messages) > 1
        year = {"a": 1, "b": 2 if again else None, "c": None}[prompt[0]]
        return json.dumps({"year": year})

    one, two, three = await Asked(ScriptedModel(reply))("a", "b", "c")
    assert (one, two) == ({"year": 1}, {"year": 2})
    assert three.kind == "schema"


async def test_images_and_a_schema_go_together():
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    model = ScriptedModel(['{"year": 3}'])
    assert await Asked(model)([{"type": "text", "text": "when?"}, image]) == {"year": 3}
    parts = model.requests[0].messages[0]["content"]
    assert [part["type"] for part in parts] == ["text", "image_url", "text"]


async def test_no_schema_is_a_bad_request_and_nothing_is_sent():
    model = ScriptedModel([])
    error = await Asked(model)("When?", schema={"type": 3})
    assert error.kind == "bad_request"
    assert "is no JSON schema: $.type" in str(error)
    assert model.requests == []


async def test_an_endpoint_that_refuses_response_format_is_asked_without():
    def refuse(served):
        wrong = "response_format" in served.body
        return Fault("status", status=400, message="response_format is unavailable") if wrong else None

    model = ScriptedModel(lambda request: '{"year": 1815}', name="m")
    async with ScriptedServer({"m": model}, fault=refuse) as server:
        client = OpenAIModel("m", base_url=server.base_url)
        asked = Asked(client)
        assert await asked("When?") == {"year": 1815}
        assert await asked("And now?") == {"year": 1815}
        await client.aclose()
        formats = ["response_format" in served.body for served in server.requests]
    assert formats == [True, False, False]  # it is not tried again
    assert asked.ledger.calls == 3
    assert [each.error is None for each in asked.of(CallFinished)] == [False, True, True]


async def test_what_is_refused_for_another_reason_stays_refused():
    model = ScriptedModel([RequestRefusedError("too long"), RequestRefusedError("too long"), '{"year": 1}'])
    asked = Asked(model)
    assert (await asked("When?")).kind == "model"
    assert await asked("When?") == {"year": 1}
    assert model.requests[-1].schema == YEAR  # and says nothing of the endpoint


async def test_a_model_is_asked_for_by_name_and_a_wrong_name_is_told_the_others():
    root, small, large = (ScriptedModel([name], name=name) for name in ("root", "small", "large"))
    asked = Asked(root, small, large)
    assert await asked("q", schema=None, model="large") == "large"
    assert await asked("q", schema=None) == "small"
    error = await asked("q", schema=None, model="huge")
    assert error.kind == "bad_request"
    assert str(error) == "no model 'huge'; there is root, small, large"
    assert asked.ledger.calls == 2


async def test_without_tools_a_call_of_one_is_a_bad_request():
    asked = Asked(ScriptedModel([]))
    (error,) = await asked.calls.answer(ToolCall("lookup"), PLACE)
    assert error.kind == "bad_request"


@pytest.mark.parametrize("schema", [{"type": "string"}, {"enum": ["yes", "no"]}])
async def test_text_need_not_be_quoted(schema):
    assert await Asked(ScriptedModel(["yes"]))("Is it?", schema=schema) == "yes"
    assert await Asked(ScriptedModel(['"yes"']))("Is it?", schema=schema) == "yes"
