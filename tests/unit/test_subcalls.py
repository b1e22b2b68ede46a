"""At the depth limit a child's question and its context are one prompt, if they fit; children are bounded."""

import asyncio
from itertools import count

import pytest

from rlm_kernel.context import Context
from rlm_kernel.errors import CallError
from rlm_kernel.events import ContextInfo, Emitter
from rlm_kernel.ledger import Ledger
from rlm_kernel.messages import message_text
from rlm_kernel.models.plan import ModelPlan
from rlm_kernel.models.scripted import ScriptedModel
from rlm_kernel.repl.base import RLMQuery
from rlm_kernel.runs.subcalls import CHILDREN, PLAIN_CONTEXT_CHARS, Place, SubCalls


async def ask(context):
    """Ask over ``context`` where no child may be; return the answer and the prompts that were sent."""
    model = ScriptedModel(lambda request: "the reply")
    calls = SubCalls(ModelPlan([model]), Ledger(), Emitter(), count(1), None)
    (answer,) = await calls.answer(RLMQuery((("Why?", context),)), Place("r1", 0, 1, "cell"))
    return answer, [message_text(request.messages[0]) for request in model.requests]


def spooled(folder, data):
    file = folder / "up-1"
    file.write_bytes(data)
    info = ContextInfo(name="context", type="str", size=3, unit="chars", description="context: str")
    return Context.spooled("context", "text", file, info)


@pytest.mark.parametrize(
    ("value", "text"), [("Because.", "Because."), ({"a": ["é"]}, '{"a": ["é"]}'), ({2}, '"{2}"')]
)
async def test_the_context_is_part_of_the_prompt(value, text):
    assert await ask(Context.of("context", value)) == ("the reply", [f"Why?\n\nContext:\n{text}"])


async def test_the_longest_text_of_the_widest_characters_is_taken(tmp_path):
    text = "\U0001f600" * PLAIN_CONTEXT_CHARS
    answer, (prompt,) = await ask(spooled(tmp_path, text.encode()))
    assert answer == "the reply"
    assert prompt.endswith(text)


async def test_a_longer_text_is_refused(tmp_path):
    answer, prompts = await ask(spooled(tmp_path, b"a" * (PLAIN_CONTEXT_CHARS + 1)))
    assert isinstance(answer, CallError)
    assert (answer.kind, prompts) == ("depth", [])
    assert "2,000,001 characters" in str(answer)


async def test_bytes_that_are_too_many_in_any_case_are_not_decoded(tmp_path):
    answer, prompts = await ask(spooled(tmp_path, b"\xff" * (4 * PLAIN_CONTEXT_CHARS + 1)))
    assert isinstance(answer, CallError)
    assert (answer.kind, prompts) == ("depth", [])  # decoding would fail, and be a bad request
    assert "8,000,001 bytes" in str(answer)


async def test_a_batch_of_children_is_answered_a_few_kernels_at_a_time():
    alive, most = 0, 0

    async def child(query, context, call, model):
        nonlocal alive, most
        alive += 1
        most = max(most, alive)
        for _ in range(5):
            await asyncio.sleep(0)
        alive -= 1
        return query.upper()

    calls = SubCalls(ModelPlan([ScriptedModel([], name="m")]), Ledger(), Emitter(), count(1), child)
    queries = [f"q{n}" for n in range(3 * CHILDREN)]
    call = RLMQuery(tuple((query, None) for query in queries), batched=True)
    assert await calls.answer(call, Place("r1", 0, 1, "cell")) == [query.upper() for query in queries]
    assert most == CHILDREN
