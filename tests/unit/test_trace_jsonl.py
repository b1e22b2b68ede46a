"""Trajectories: events come back as they were, files grow with new text only, and no key gets in."""

from __future__ import annotations

import io
import json
import random
import stat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded_run import Texts, run, stamped, usage

from rlm_kernel import events as ev
from rlm_kernel.errors import InputError
from rlm_kernel.outputs import Output
from rlm_kernel.trace.jsonl import JsonlWriter, Trajectory, prompt_sha256, read
from rlm_kernel.trace.redact import REDACTED, Redactor

CONTEXT = " ".join(f"w{number * 7919 % 100_003}" for number in range(8000))
KEPT_OUT = ("call_delta", "cell_output")


def write(path, events, **options):
    with JsonlWriter(path, **options) as writer:
        for event in events:
            writer(event)
    return path


def kept(events):
    return [event for event in events if event.type not in KEPT_OUT]


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]


def test_every_event_comes_back(tmp_path):
    events = run(CONTEXT)
    assert {event.type for event in events} == set(ev._TYPES)
    path = write(tmp_path / "run.jsonl", events)
    trajectory = Trajectory.load(path, CONTEXT)
    assert list(trajectory.events) == kept(events)
    assert list(read(path, [{"other": "x" * 500, "context": CONTEXT}])) == kept(events)
    assert (trajectory.missing, trajectory.truncated) == ((), False)


def test_the_context_is_not_in_the_file(tmp_path):
    path = write(tmp_path / "run.jsonl", run(CONTEXT))
    text = path.read_text()
    assert CONTEXT[2000:2200] not in text
    assert len(text) < 12_000 < len(CONTEXT)
    first, *others = lines(path)
    assert first == {"type": "trajectory", "version": 1, "package": "rlm-kernel 0.1.0"}
    sources = [line for line in others if line["type"] == "source"]
    assert [(each["context"], each["where"], each["chars"]) for each in sources] == [
        ("context", "", len(CONTEXT))
    ]


def test_without_the_context_slices_are_named_and_the_rest_is_whole(tmp_path):
    events = run(CONTEXT)
    trajectory = Trajectory.load(write(tmp_path / "run.jsonl", events))
    assert trajectory.missing == ("context",)
    prompts = [event for event in trajectory.events if isinstance(event, ev.CallStarted) and event.batch]
    assert "[slice of context: " in prompts[1].messages[0]["content"]
    for kind in (ev.CallFinished, ev.CellStarted, ev.RunFinished):  # one answer quotes the context
        assert [each for each in trajectory.events if isinstance(each, kind)] == [
            each for each in events if isinstance(each, kind)
        ]


def test_twenty_turns_over_five_megabytes_stay_under_one(tmp_path):
    source = random.Random(1)
    context = " ".join(f"w{source.randrange(10**6)}" for _ in range(720_000))[:5_000_000]

    def stream():
        yield ev.RunStarted(
            run="r1", query="q", model="m", sub_model="s", repl="local", sources=(Texts({"": context}),)
        )
        for turn in range(1, 21):
            yield ev.CellStarted(run="r1", cell=f"x{turn}", turn=turn, block=1, code="ask(everything)")
            size = 90_000 + 1000 * turn
            for index, start in enumerate(range(0, len(context), size)):
                call = f"c{turn}.{index}"
                content = (
                    f"Turn {turn}: what is in part {index}?\n\n{context[start : start + size]}\n\nBe short."
                )
                yield ev.CallStarted(
                    run="r1",
                    call=call,
                    kind="llm_query",
                    turn=turn,
                    depth=1,
                    model="s",
                    cell=f"x{turn}",
                    batch=f"b{turn}",
                    index=index,
                    messages=({"role": "user", "content": content},),
                )
                yield ev.CallFinished(
                    run="r1",
                    call=call,
                    text=f"words {index}",
                    model="s",
                    usage=usage(23_000, 4),
                    finish_reason="stop",
                    seconds=0.123456,
                )
            yield ev.CellFinished(
                run="r1", cell=f"x{turn}", status="ok", outputs=(Output("stdout", text=context[:5000]),)
            )

    events = stamped(stream())
    path = write(tmp_path / "run.jsonl", events)
    assert sum(len(event.messages[0]["content"]) for event in events if event.type == "call_started") > 10**8
    assert path.stat().st_size < 1_000_000
    assert list(read(path, context)) == events


def test_new_text_is_stored_once_however_often_it_is_sent(tmp_path):
    """Items too short to be slices are new text, once joined; a later prompt over them is not."""
    items = [f"record {number}: {number * 7919 % 100_003}" for number in range(40_000)]
    joined = "\n".join(items)

    def stream():
        yield ev.RunStarted(
            run="r1",
            query="q",
            model="m",
            sub_model="s",
            repl="local",
            sources=(Texts({f"[{number}]": item for number, item in enumerate(items)}),),
        )
        for turn in range(10):
            for start in range(0, len(joined), 100_000):
                content = f"Turn {turn}:\n{joined[start + turn * 10 : start + 100_000]}"
                yield ev.CallStarted(
                    run="r1",
                    call=f"c{turn}.{start}",
                    kind="llm_query",
                    turn=1,
                    depth=1,
                    model="s",
                    messages=({"role": "user", "content": content},),
                )

    events = stamped(stream())
    path = write(tmp_path / "run.jsonl", events)
    assert path.stat().st_size < 1.2 * len(joined)
    assert list(read(path)) == events


_texts = st.one_of(st.text(max_size=50), st.text(alphabet=st.characters(), max_size=20).map(lambda t: t * 30))
_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), _texts),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["a", "$text", "$$t", "$"]), inner)
    ),
    max_leaves=8,
)


@given(st.lists(_texts, max_size=5), _values)
@settings(max_examples=100, deadline=None)
def test_any_text_and_value_comes_back(tmp_path_factory, texts, value):
    """Lone surrogates too, and halves of a pair that stand side by side as two characters."""
    pair = "\ud83d" + "\ude00"
    events = stamped(
        [
            ev.Notice(run="r1", text=pair),
            *(ev.MessageAdded(run="r1", turn=0, message={"role": "user", "content": text}) for text in texts),
            ev.RunFinished(run="r1", status="answered", text=pair * 200, value=value),
        ]
    )
    path = write(tmp_path_factory.mktemp("any") / "run.jsonl", events)
    assert list(read(path)) == events


def test_an_answer_nested_beyond_reason_costs_its_value_only(tmp_path):
    value: list = []
    for _ in range(100_000):
        value = [value]
    path = write(
        tmp_path / "run.jsonl", [ev.RunFinished(run="r1", status="answered", text="deep", value=value)]
    )
    (event,) = read(path)
    assert (event.text, type(event.value)) == ("deep", str)


@pytest.mark.parametrize("cut", [1, 40, 3000])
def test_a_crash_leaves_a_valid_prefix(tmp_path, cut):
    events = run(CONTEXT)
    path = write(tmp_path / "run.jsonl", events)
    path.write_bytes(path.read_bytes()[:-cut])
    trajectory = Trajectory.load(path, CONTEXT)
    expected = kept(events)
    assert list(trajectory.events) == expected[: len(trajectory.events)]
    assert trajectory.truncated == (cut != 1)  # without its line end the last line is still whole
    assert len(trajectory.events) == len(expected) or cut > 1


def test_every_line_is_there_as_soon_as_its_event(tmp_path):
    path = tmp_path / "run.jsonl"
    events = run(CONTEXT)
    with JsonlWriter(path) as writer:
        for number, event in enumerate(events):
            writer(event)
            assert list(read(path, CONTEXT)) == kept(events[: number + 1])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "empty"),
        ("hello\n", "line 1 is not JSON"),
        ('{"type": "trajectory", "version": 9}\n', "version 9"),
        ('{"type": "metadata"}\n', "'metadata'"),
        ('{"type": "trajectory", "version": 1}\nrubbish\n{}\n', "line 2 is not JSON"),
        ('{"type": "trajectory", "version": 1}\n{"v": 1, "type": "tea"}\n', "line 2.*unknown type 'tea'"),
        ('{"type": "trajectory", "version": 1}\n[]\n', "line 2"),
        (
            '{"type": "trajectory", "version": 1}\n{"v": 1, "text": {"$text": [{"t": "00"}]}}\n',
            "line 2: KeyError\\('00'",
        ),
    ],
)
def test_what_is_no_trajectory_is_refused(tmp_path, content, says):
    path = tmp_path / "run.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match=says):
        list(read(path))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        Trajectory.load(tmp_path / "nowhere.jsonl")


def test_the_file_is_private_also_when_it_was_not(tmp_path):
    path = tmp_path / "run.jsonl"
    path.write_text("old")
    path.chmod(0o644)
    write(path, run(CONTEXT))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "old" not in path.read_text()


def test_an_open_file_stays_open():
    file = io.StringIO()
    with JsonlWriter(file) as writer:
        writer(ev.Notice(run="r1", text="hello"))
    assert [json.loads(line)["type"] for line in file.getvalue().splitlines()] == ["trajectory", "notice"]


def test_no_key_gets_in(tmp_path):
    shaped, exact = "sk-canary-0123456789abcdef", "plainsecret/with+odd=chars"
    hostile = f" {shaped} and {exact} or Authorization: Bearer {'a1' * 20}"
    context = CONTEXT[:9000] + hostile + CONTEXT[9000:]
    events = run(context, hostile=hostile)
    events.append(ev.RunFinished(run="r9", status="failed", text="", value={shaped: [exact]}))
    events.insert(1, ev.Notice(run="r1", text="key sk-proj-" + "x" * 300))
    path = write(tmp_path / "run.jsonl", events, secrets=[exact, "x"])
    text = path.read_text()
    assert REDACTED in text
    for secret in (shaped, exact, "canary", "plainsecret", "a1a1a1", "x" * 20):
        assert secret not in text
    assert "x" in Redactor(["x"])("x")  # too short to be a secret
    loaded = Trajectory.load(path, context)
    assert loaded.prompts  # of what was sent, so a replay still matches
    original = [event for event in events if isinstance(event, ev.CallStarted) and event.batch]
    for event in original:
        assert loaded.prompts[event.call] == prompt_sha256(event.messages)


@pytest.mark.parametrize(
    "text",
    [
        "a risk-management-and-compliance report",
        "task-specific-instructions-v2",
        "Bearer bonds",
        "sk-learn",
        "ghp_x",
    ],
)
def test_ordinary_words_are_no_keys(text):
    assert Redactor()(text) == text


def test_prompt_hash_of_a_root_call_is_that_of_the_conversation(tmp_path):
    events = run(CONTEXT)
    prompts = Trajectory.load(write(tmp_path / "run.jsonl", events)).prompts
    messages = [event.message for event in events if isinstance(event, ev.MessageAdded) and event.run == "r1"]
    assert prompts["c1"] == prompt_sha256(messages[:2])
    assert prompts["c2"] == prompt_sha256(messages[:4])
    assert prompts["c1"] != prompts["c2"]
