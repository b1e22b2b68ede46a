"""Runs with a real, small language model: RLM_TEST_GGUF=model.gguf pytest -m real_llm tests/real

Small models answer a part of these right, never the same part, so what is asserted are properties of the
protocol, and the shares of runs in which code ran and of right answers: RLM_TEST_GGUF_RAN and
RLM_TEST_GGUF_RIGHT, from 0 to 1, by default 0.5 and 0.2. SmolLM2 of 135M parameters reaches neither.
RLM_TEST_GGUF_REPEAT (2) is how often each kind of question is asked.
"""

from __future__ import annotations

import os
import random
import re
from dataclasses import dataclass

import pytest

from rlm_kernel import RLM, Budget, ModelOptions
from rlm_kernel.events import CellFinished, KernelStarted, MessageAdded, RunFinished, RunStarted
from rlm_kernel.models.base import Request
from rlm_kernel.models.gguf import GGUFModel

pytestmark = [pytest.mark.real_llm, pytest.mark.timeout(3600)]

RAN = float(os.environ.get("RLM_TEST_GGUF_RAN", "0.5"))
RIGHT = float(os.environ.get("RLM_TEST_GGUF_RIGHT", "0.2"))
REPEAT = int(os.environ.get("RLM_TEST_GGUF_REPEAT", "2"))
OPTIONS = ModelOptions(temperature=0, max_output_tokens=400)
WORDS = ["river", "stone", "cloud", "winter", "garden", "window", "market", "letter", "silver", "candle"]
NAMES = ("Ada", "Bo", "Cleo", "Dan")


@dataclass(frozen=True)
class Task:
    """A question with one right answer."""

    kind: str
    question: str
    context: str
    gold: str

    def is_right(self, text: str) -> bool:
        return re.search(rf"(?<![\w-]){re.escape(self.gold)}(?![\w-])", text) is not None


def tasks() -> list[Task]:
    """Return the five kinds of question, each ``REPEAT`` times over other texts."""
    found = []
    for seed in range(REPEAT):
        pick = random.Random(seed)
        lines = [" ".join(pick.choices(WORDS, k=8)) for _ in range(60)]
        code = f"{pick.randrange(10**5, 10**6)}"
        place = pick.randrange(60)
        with_code = [*lines[:place], f"the secret code is {code}", *lines[place:]]
        word = pick.choice(WORDS)
        scores = [(pick.choice(NAMES), pick.randrange(1000)) for _ in range(40)]
        table = "\n".join(f"{name}: {score}" for name, score in scores)
        found += [
            Task(
                "find", "What is the secret code? One line of the text says it.", "\n".join(with_code), code
            ),
            Task(
                "lines", "How many lines does the text have?", "\n".join(lines[: 40 + seed]), str(40 + seed)
            ),
            Task(
                "word",
                f"How many lines contain the word {word!r}?",
                "\n".join(lines),
                str(sum(word in line for line in lines)),
            ),
            Task(
                "max",
                "Lines read like 'Ada: 12'. What is the highest number?",
                table,
                str(max(score for _, score in scores)),
            ),
            Task(
                "sum",
                "Lines read like 'Ada: 12'. What is the sum of all numbers of Bo?",
                table,
                str(sum(score for name, score in scores if name == "Bo")),
            ),
        ]
    return found


@pytest.fixture(scope="module")
def rlm(real_gguf):
    with RLM(model=f"gguf:{real_gguf}", max_iterations=4, options=OPTIONS, budget=Budget(seconds=600)) as rlm:
        yield rlm


@pytest.fixture
async def model(real_gguf):
    model = GGUFModel(real_gguf, options=OPTIONS)
    yield model
    await model.aclose()


def test_runs_keep_to_the_protocol_and_some_answers_are_right(rlm, record_property):
    right, ran, ended = 0, 0, []
    asked = tasks()
    for task in asked:
        events = []
        answer = rlm.completion(task.question, task.context, readers=[events.append])
        assert isinstance(events[0], RunStarted)
        assert isinstance(events[-1], RunFinished)
        assert [event.seq for event in events] == list(range(len(events)))
        assert any(isinstance(event, KernelStarted) for event in events)
        assert sum(isinstance(event, MessageAdded) for event in events) == len(answer.messages)
        assert answer.status in ("answered", "exhausted", "failed", "over_budget")
        assert answer.usage.input_tokens > 0
        assert answer.usage.cost_usd == 0
        ran += any(isinstance(event, CellFinished) for event in events)
        right += bool(answer) and task.is_right(answer.text)
        ended.append(f"{task.kind}: {answer.status} {answer.text[:40]!r}, right is {task.gold}")
    record_property("right", right)
    record_property("ran", ran)
    print(f"{right} of {len(asked)} right, code ran in {ran}", *ended, sep="\n")
    assert ran >= RAN * len(asked)
    assert right >= RIGHT * len(asked)


async def test_a_second_request_finds_its_prefix_in_the_cache(model):
    messages = [{"role": "user", "content": "Remember these words: " + " ".join(WORDS * 5)}]
    first = await model.reply(Request(messages))
    second = await model.reply(
        Request(
            [*messages, {"role": "assistant", "content": first.text}, {"role": "user", "content": "Go on."}]
        )
    )
    assert first.usage.output_tokens > 0
    assert second.usage.cached_tokens > 100


async def test_a_schema_is_obeyed(model):
    schema = {"type": "object", "properties": {"sport": {"enum": ["yes", "no"]}}, "required": ["sport"]}
    ask = "Is this text about sports? The team won the match in the last minute. Reply in JSON."
    reply = await model.reply(Request([{"role": "user", "content": ask}], schema=schema))
    assert re.fullmatch(r'\s*\{\s*"sport"\s*:\s*"(yes|no)"\s*\}\s*', reply.text)


async def test_a_stream_says_the_same_as_a_whole_reply(model):
    request = Request([{"role": "user", "content": "Name a colour."}])
    whole = await model.reply(request)
    *pieces, streamed = [piece async for piece in model.stream(request)]
    assert streamed.text == "".join(pieces) == whole.text


def test_a_short_text_is_asked_about_directly(rlm, real_gguf):
    with RLM(model=f"gguf:{real_gguf}", options=OPTIONS, direct_below=2000) as direct:
        answer = direct.completion("Which animal is named?", "The cat sat on the mat.")
    assert (answer.direct, answer.status, answer.total_calls) == (True, "answered", 1)
