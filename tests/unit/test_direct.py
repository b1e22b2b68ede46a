"""A direct call in place of a run: when it is made, what it asks, what is told of it. No kernel starts."""

import dataclasses
import io

import pytest
from rich.console import Console

from rlm_kernel import RLM, Budget, ReplayModel, ScriptedModel
from rlm_kernel.errors import AuthError
from rlm_kernel.events import (
    CallDelta,
    CallFinished,
    CallStarted,
    MessageAdded,
    Notice,
    RunFinished,
    RunStarted,
)
from rlm_kernel.models.prices import Price
from rlm_kernel.trace.console import ConsoleReader

PRICES = {"scripted": Price(10, 10)}


def no_kernel():
    pytest.fail("a kernel was started")


def answer_of(model, *asked, direct_below=1000, readers=(), save=None, **options):
    contexts = options.pop("contexts", None)
    with RLM(model=model, direct_below=direct_below, repl=no_kernel, **options) as rlm:
        return rlm.completion(*asked, contexts=contexts, readers=readers, save=save)


def test_a_short_context_is_asked_about_directly():
    model = ScriptedModel(["Thirty."], prices=PRICES, window=5000)
    events = []
    answer = answer_of(model, "How many?", "a short text", readers=[events.append])
    assert (answer.text, answer.value, answer.status, answer.direct) == (
        "Thirty.",
        "Thirty.",
        "answered",
        True,
    )
    assert (answer.iterations, answer.total_calls, len(answer.repl_history)) == (1, 1, 0)
    assert [request.messages for request in model.requests] == [
        [{"role": "user", "content": "How many?\n\nContext:\na short text"}]
    ]
    assert [message["role"] for message in answer.messages] == ["user", "assistant"]
    kinds = [type(event) for event in events if not isinstance(event, CallDelta)]
    assert kinds == [RunStarted, Notice, CallStarted, CallFinished, MessageAdded, MessageAdded, RunFinished]
    assert events[0].direct
    assert "asked directly, in one call without a REPL" in events[1].text
    assert answer.estimate.tokens == pytest.approx(answer.usage.input_tokens, abs=4)
    assert answer.to_json()["direct"] is True
    assert answer.to_json()["estimate"]["fits"] is True


def test_several_contexts_are_named_and_values_are_json():
    model = ScriptedModel(["Two."])
    answer_of(model, "What changed?", contexts={"old": "1, 2", "new": {"é": [1, 3]}})
    assert model.requests[0].messages[0]["content"] == (
        'What changed?\n\nContext:\nold:\n1, 2\n\nnew:\n{"é": [1, 3]}'
    )


def test_no_context_at_all():
    model = ScriptedModel(["Paris."])
    assert answer_of(model, "Capital of France?").text == "Paris."
    assert model.requests[0].messages[0]["content"] == "Capital of France?"


@pytest.mark.parametrize(
    ("context", "options"),
    [
        ("word" * 2000, {}),
        ("a short text", {"direct_below": None}),
        (b"bytes", {}),
        ("a short text", {"window": 50}),
        ("a short text", {"tools": {"double": lambda n: 2 * n}}),
    ],
    ids=["long", "not allowed", "no text", "no room in the window", "tools"],
)
def test_anything_else_is_a_run(context, options):
    class StartedError(Exception):
        pass

    def started():
        raise StartedError

    model = ScriptedModel(["```repl\n1\n```"], window=options.pop("window", None))
    with (
        RLM(model=model, repl=started, **{"direct_below": 1000, **options}) as rlm,
        pytest.raises(StartedError),
    ):
        rlm.completion("How many?", context)


def test_a_budget_holds():
    model = ScriptedModel(["Thirty."], prices=PRICES)
    answer = answer_of(model, "How many?", "text", budget=Budget(calls=1, usd=1))
    assert answer.usage.cost_usd == answer.usage.by_model["scripted"].cost_usd > 0


def test_a_failing_model_fails_the_run():
    answer = answer_of(ScriptedModel([AuthError("no key")]), "How many?", "text")
    assert (answer.status, answer.text, answer.direct) == ("failed", "", True)
    assert "no key" in answer.reason


def test_it_can_be_replayed(tmp_path):
    path = tmp_path / "run.jsonl"
    answer = answer_of(ScriptedModel(["Thirty."]), "How many?", "a short text", save=path)
    replay = ReplayModel(path)
    again = answer_of(replay, "How many?", "a short text")
    assert (again.text, again.messages, replay.divergences) == (answer.text, answer.messages, ())


@pytest.mark.parametrize("terminal", [True, False])
def test_the_console_says_so_and_compares(terminal):
    out = io.StringIO()
    console = Console(file=out, width=200, force_terminal=terminal)
    model = ScriptedModel(["Thirty."], prices=PRICES, window=5000)
    with ConsoleReader(console) as reader:
        answer_of(model, "How many?", "a short text", readers=[reader])
    shown = out.getvalue()
    assert "asked directly, in one call without a REPL" in shown
    said = f"estimate: about 6 tokens; one direct call: about ${answer_cost(6):.4f}"
    assert shown.rindex(said) > shown.rindex("answered in")
    assert shown.index(said) < shown.index("Thirty.")


def answer_cost(tokens):
    return (tokens + 1000) * 10 / 1e6


def test_the_setting_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("RLM_DIRECT_BELOW", "1000")
    with RLM(model=ScriptedModel(["Thirty."]), repl=no_kernel) as rlm:
        assert rlm.completion("How many?", "text").direct


def test_answers_say_by_default_that_they_are_not_direct():
    from rlm_kernel import Answer

    assert {each.name: each.default for each in dataclasses.fields(Answer)}["direct"] is False
