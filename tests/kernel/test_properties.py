"""What holds for any script: twice it is the same run; a model that gets nowhere is told apart."""

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlm_kernel import RLM, Budget, ScriptedModel

PIECES = (
    "print(len(context), context[:5])",
    "seen = [*globals().get('seen', []), len(context)]; seen",
    "print(llm_query('once'))",
    "print(llm_query_batched([f'part {n}' for n in range(4)]))",
    "1 / 0",
    "import sys; print('aside', file=sys.stderr); {'a': {1, 2}}",
    "print(sorted(SHOW_VARS()))",
    "answer['content'] = 'a draft'",
)
# What a run's messages may hold of the machine: how long things took.
_SECONDS = re.compile(r"\d+(\.\d+)? ?m?s\b")


def block(code):
    return f"```repl\n{code}\n```"


async def play(replies, context="alpha beta", **options):
    sub = ScriptedModel(lambda request: request.messages[-1]["content"][::-1], name="sub")
    async with RLM(model=ScriptedModel(replies, name="root"), sub_model=sub, **options) as rlm:
        return await rlm.acompletion("What?", context)


def transcript(answer):
    return answer.status, answer.text, [_SECONDS.sub("", repr(each)) for each in answer.messages]


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.lists(st.sampled_from(PIECES), min_size=1, max_size=3), min_size=1, max_size=4),
    st.text(min_size=1, max_size=30),
)
async def test_the_same_script_gives_the_same_transcript(turns, context):
    replies = [block("\n".join(codes)) for codes in turns] + [block("FINAL('done')")]
    first, second = [await play(replies, context) for _ in range(2)]
    assert transcript(first) == transcript(second)
    assert first.total_calls == second.total_calls


NOWHERE = {
    "never finishes": [block(f"step = {n}; print(step)") for n in range(10)],
    "repeats itself": [block("print(context)")] * 10,
    "repeats its question": [block("print(llm_query('the same'))")] * 10,
    "writes only prose": ["I should look at the context first."] * 10,
    "writes broken code": [block("for piece in context print(piece)")] * 10,
    "writes code that fails": [block("missing + 1")] * 10,
    "answers empty": [""] * 10,
}


@pytest.mark.parametrize("name", NOWHERE)
async def test_a_model_that_gets_nowhere_ends_in_a_marked_best_effort(name):
    answer = await play([*NOWHERE[name], "My best guess is beta."], max_iterations=10)
    assert (answer.status, answer.text, answer.iterations) == ("exhausted", "My best guess is beta.", 10)
    assert not answer
    assert "10 turns" in answer.reason


@pytest.mark.parametrize("name", ["writes broken code", "writes code that fails"])
async def test_failures_in_a_row_are_a_budget_of_their_own(name):
    answer = await play(NOWHERE[name], budget=Budget(errors=3))
    assert (answer.status, answer.iterations) == ("over_budget", 3)
