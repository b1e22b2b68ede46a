"""`ScriptedModel`, its policies and its reader: what they write is real, and what it computes is right."""

import asyncio
import re
from decimal import Decimal

import pytest

from rlm_kernel import dialect, errors
from rlm_kernel.models.base import Model, Reply, Request
from rlm_kernel.models.policies import POLICIES, pattern_of, question_of
from rlm_kernel.models.prices import Price
from rlm_kernel.models.reader import file_block, read
from rlm_kernel.models.scripted import ScriptedModel


def ask(*contents, system=False):
    messages = [{"role": "system", "content": "You have a REPL."}] if system else []
    roles = ["user", "assistant"]
    return Request(messages + [{"role": roles[i % 2], "content": text} for i, text in enumerate(contents)])


async def test_a_list_is_used_up_in_order():
    async def later(request):
        await asyncio.sleep(0)
        return "three"

    model = ScriptedModel(["one", lambda request: "two", later, errors.RateLimitError("slow down")])
    assert isinstance(model, Model)
    assert [(await model.reply(ask("q"))).text for _ in range(3)] == ["one", "two", "three"]
    with pytest.raises(errors.RateLimitError, match="slow down"):
        await model.reply(ask("q"))
    with pytest.raises(errors.RequestRefusedError, match="has 4 replies; this is request 5"):
        await model.reply(ask("q"))
    assert len(model.requests) == 5


@pytest.mark.parametrize("text", ["", " ", "one", " one  two\n\nthree ", "\n"])
async def test_a_stream_is_the_reply_in_words(text):
    model = ScriptedModel(lambda request: text)
    *words, reply = [piece async for piece in model.stream(ask("q"))]
    assert isinstance(reply, Reply)
    assert "".join(words) == reply.text == text


async def test_tokens_are_characters_and_prefixes_are_cached_in_blocks():
    model = ScriptedModel(lambda request: "12345", prices={"scripted": Price(1, 10, "0.1")})
    first = (await model.reply(ask("a" * 3000))).usage
    assert (first.input_tokens, first.output_tokens, first.cached_tokens) == (750, 2, 0)
    assert first.cost_usd == Decimal("0.00077")
    longer = (await model.reply(ask("a" * 3000, "b" * 1000, "c"))).usage
    assert (longer.input_tokens, longer.cached_tokens) == (1001, 512)
    assert (await model.reply(ask("b" + "a" * 3000))).usage.cached_tokens == 0
    again = (await model.reply(ask("a" * 3000, "b" * 1000, "d" * 2000))).usage
    assert again.cached_tokens == 768
    assert (await ScriptedModel(["x"]).reply(ask("q"))).usage.cost_usd is None


def test_unknown_policy():
    with pytest.raises(errors.ConfigError) as caught:
        ScriptedModel("dream")
    assert "map_reduce" in caught.value.hint


@pytest.mark.parametrize(
    ("prompt", "reply"),
    [
        ("Count the matches of /a.c/ in the text.\n\nabc\naxc abc", "3"),
        ("Count the matches of /^a/ in this part. Reply with the number only.\n\nContext:\na\nb\na", "2"),
        ("Count the matches of /a/b/ in the text\n\na/b", "1"),
        ("Count the matches of /(/ in the text\n\n(", "That is no regular expression: "),
        ("List the matches of /user (\\w+)/ in the text\n\nuser bo, user al, user bo", "bo\nal"),
        (
            "Summarise the text in 2 sentences\n\n\n---\nOne. More.\nTwo goes on\n3\nFour.",
            "One.\nTwo goes on",
        ),
        ("Summarise the text in 1 sentence\n\n", "The text is empty."),
        ("Which of these is named most often: cat, dog\n\nDog cat dog", "dog"),
        ("Which of these is named most often: cat, dog\n\nfish", "none"),
        ("What is love?", "I am scripted and know no rule"),
    ],
)
def test_the_reader_computes_its_reply_from_the_prompt(prompt, reply):
    assert read(ask("earlier", "reply", prompt)).startswith(reply)


def test_the_reader_keeps_files_apart_whatever_they_hold():
    tricky = 'def\n=== FILE "x" (3 characters) ===\ndef'
    text = file_block('a "b"\n.py', tricky) + file_block("empty", "") + file_block("c.py", "def def\n")
    prompt = "Count the matches of /def/ in each file.\n\n" + text
    assert read(ask(prompt)) == '{"a \\"b\\"\\n.py": 2, "empty": 0, "c.py": 2}'
    prompt = "List the matches of /d../ in each file.\n\n" + text
    assert read(ask(prompt)) == '{"a \\"b\\"\\n.py": ["def"], "empty": [], "c.py": ["def"]}'


@pytest.mark.parametrize(
    ("message", "question"),
    [
        ("How many?", "How many?"),
        ("Question: How many?\n\nTurn 1 of 20.", "How many?"),
        ("Context: a str.\nQuestion: no\n\nQuestion:\nHow many\nof them?\n\nTurn 1", "How many\nof them?"),
    ],
)
def test_the_question_is_found_in_the_first_message(message, question):
    assert question_of(ask(message, "reply", "Question: another", system=True)) == question


@pytest.mark.parametrize(
    ("question", "pattern"),
    [
        (r"How many lines match /ERR\d+ in a\/b/ here?", r"ERR\d+ in a\/b"),
        ("What's the number of 'a.b' in the user's text?", r"a\.b"),
        ("How often is \u201cwar\u201d named?", "war"),
        ("Which file in /usr/lib/python3 defines the most functions?", r"^[ \t]*(?:async[ \t]+)?def[ \t]"),
        ("How many classes?", r"^[ \t]*class[ \t]"),
        ("Where is the treasure?", "treasure?".rstrip("?")),
        ("???", "the"),
    ],
)
def test_the_question_decides_what_is_looked_for(question, pattern):
    assert pattern_of(question)[0] == pattern


class Repl:
    """The least of a REPL: names in which a policy's code runs, sub-calls answered by the scripted reader."""

    def __init__(self, context, child=None):
        self.answer = {}
        self.final = None
        self.prompts = []
        self.child = child
        self.names = {
            "context": context,
            "answer": self.answer,
            "llm_query": self.ask,
            "llm_query_batched": lambda prompts: [self.ask(prompt) for prompt in prompts],
            "rlm_query_batched": lambda items: [self.child(*item) for item in items],
            "FINAL": self.finish,
            "FINAL_VAR": lambda name: self.finish(self.names[name]),
        }

    def ask(self, prompt):
        self.prompts.append(prompt)
        return read(ask(prompt))

    def finish(self, value):
        self.final = value


def run(policy, context, question, child=None):
    """Play ``policy`` to its end; return the answer and the prompts of its sub-calls."""
    repl = Repl(context, child)
    contents = [f"context: {type(context).__name__}\n\nQuestion: {question}\n\nTurn 1 of 20."]
    for _ in range(3):
        reply = POLICIES[policy](ask(*contents, system=True))
        parsed = dialect.parse(reply)
        for block in parsed.blocks:
            exec(block.code, repl.names)
        if parsed.final:
            repl.finish(repl.names[parsed.final.argument])
        if repl.final is not None or repl.answer.get("ready"):
            return repl.answer.get("content", repl.final), repl.prompts
        contents += [reply, "REPL output:\n(no output)"]
    raise AssertionError("no answer in three turns")


LINES = [f"line {i}: user {'abc'[i % 3]} said x" for i in range(6)]
CONTEXTS = {
    "str": "\n".join(LINES),
    "list": LINES,
    "dict": {f"f{i}.txt": line for i, line in enumerate(LINES)},
    "mixed list": [*LINES[:5], {"text": LINES[5]}],
}


@pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS)
@pytest.mark.parametrize("policy", POLICIES)
def test_policies_answer_over_every_kind_of_context(policy, context):
    children = []

    def child(query, part):
        children.append(part)
        assert isinstance(part, str)
        return str(run(policy, part, query)[0])

    answer, prompts = run(policy, context, r"How many matches of /user (\w)/ are there?", child)
    if policy in ("peek", "summary"):
        assert answer.startswith("line 0: user a said x")
    elif policy == "grep":
        assert answer["matches"] == 6
        assert answer["first"][0][1] == "user a"
    elif policy == "map_reduce":
        assert re.findall(r"\b6\b", answer)
    elif policy == "pairs":
        shift = 1 if policy == "pairs" and isinstance(context, str) else 0
        names = [re.search(r"\d+", name)[0] for pair in answer for name in pair]
        expected = [(0, 3), (1, 4), (2, 5)]
        assert [int(name) for name in names] == [i + shift for pair in expected for i in pair]
    else:
        assert answer == 6
        assert len(children) == 4
    assert bool(prompts) == (policy not in ("grep", "recursive", "reader"))


@pytest.mark.parametrize("context", ["", [], {}])
@pytest.mark.parametrize("policy", POLICIES)
def test_policies_answer_over_nothing(policy, context):
    answer, _ = run(policy, context, "How many 'x'?", lambda query, part: "0")
    assert answer is not None


def test_map_reduce_counts_a_large_context_exactly_in_few_calls():
    source = "import os\n\ndef one():\n    async  def two(): pass\n" * 2000
    files = {f"p/f{i}.py": source * (i % 3) + f"def last{i}(): pass" for i in range(40)}
    question = "Which file of the standard library defines the most functions, and how many are there in all?"
    answer, prompts = run("map_reduce", files, question)
    pattern = re.compile(r"^[ \t]*(?:async[ \t]+)?def[ \t]", re.MULTILINE)
    counts = {path: len(pattern.findall(text)) for path, text in files.items()}
    best = max(counts, key=counts.get)
    assert answer.startswith(f"{best} has the most functions: {counts[best]}.")
    assert f"There are {sum(counts.values())} in all, in 40 texts." in answer
    size = sum(map(len, files.values()))
    assert size / 150_000 <= len(prompts) < size / 75_000
    assert max(map(len, prompts)) < 200_000


def test_work_that_was_lost_is_done_again():
    policy = POLICIES["map_reduce"]
    turns = ["Question: 'x'?", "r1", "out", "r2", "Traceback\nNameError: name 'counts' is not defined"]
    assert "llm_query_batched" in policy(ask(*turns, system=True))
    assert "llm_query_batched" not in policy(ask(*turns[:4], "REPL output: 3", system=True))


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_answers_sub_calls_as_the_reader_does(policy):
    assert POLICIES[policy](ask("Count the matches of /a/ in the text\n\naa")) == "2"
