"""What a direct call would take: sizes of all kinds of context, windows, prices, and how it is said."""

import json
from decimal import Decimal

import pandas
import pytest

from rlm_kernel import RLM, OpenAIModel, ScriptedModel
from rlm_kernel.errors import InputError
from rlm_kernel.estimate import REPLY_TOKENS, Estimate, text_tokens, value_tokens
from rlm_kernel.events import RunStarted, from_json, to_json
from rlm_kernel.models import prices
from rlm_kernel.models.base import ModelOptions
from rlm_kernel.models.prices import Price
from rlm_kernel.models.windows import listed_window

KEY = "sk-canary-0123456789abcdef"
OPENAI = "https://api.openai.com/v1"


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), ("word" * 100, 100), ("ä" * 30, 20), ("漢" * 30, 30), ("\ud800", 1), ("ab" * 6 + "é" * 3, 5)],
)
def test_tokens_of_a_text(text, tokens):
    assert text_tokens(text) == pytest.approx(tokens)


def test_a_large_text_is_sampled_evenly():
    text = "word" * 2_500_000 + "漢" * 2_500_000
    assert text_tokens(text) == pytest.approx(5_000_000, rel=0.02)


@pytest.mark.parametrize(
    "value",
    [
        ["some words in a list"] * 500,
        [f"item {n}" for n in range(100_000)],
        {f"file {n}": "def f():\n    pass\n" * 20 for n in range(300)},
        [{"name": "Ada", "scores": [1, 2.5, None, True]}] * 200,
    ],
    ids=["list", "long list", "dict", "rows"],
)
def test_tokens_of_a_value_are_about_those_of_its_json(value):
    assert value_tokens(value) == pytest.approx(text_tokens(json.dumps(value)), rel=0.35)


def test_tokens_of_a_frame_are_about_those_of_its_csv():
    frame = pandas.DataFrame({"a": range(1000, 2000), "b": ["some text"] * 1000})
    assert value_tokens(frame) == pytest.approx(text_tokens(frame.to_csv()), rel=0.1)


@pytest.mark.parametrize("value", [b"bytes", object(), ["text", b"bytes"], {"a": object()}])
def test_what_is_no_text_has_no_tokens(value):
    assert value_tokens(value) is None


def test_nesting_ends_somewhere():
    value = []
    value.append(value)
    assert value_tokens(value) is None


@pytest.mark.parametrize(
    ("estimate", "says"),
    [
        (
            Estimate("m", 1234, 400_000, Decimal("0.0123")),
            "about 1,234 tokens; one direct call: about $0.0123",
        ),
        (
            Estimate("m", 500_000, 400_000),
            "about 500,000 tokens; one direct call would not fit: the window of m has 400,000 tokens",
        ),
        (
            Estimate("m", 12, None, Decimal("0.5")),
            "about 12 tokens; one direct call, if it fits (window not known): about $0.5000",
        ),
        (Estimate("m", 12, 400_000), "about 12 tokens; one direct call: price of m not known"),
        (Estimate("m"), "size in tokens not known: a context is no text"),
    ],
)
def test_how_it_is_said(estimate, says):
    assert str(estimate) == says


def test_the_reply_must_fit_too():
    assert Estimate("m", 1000, 1000 + REPLY_TOKENS).fits
    assert Estimate("m", 1001, 1000 + REPLY_TOKENS).fits is False


def test_windows_and_prices_come_from_the_list():
    assert listed_window("gpt-5-mini", OPENAI) == 400_000
    assert listed_window("no-such-model", OPENAI) is None
    with RLM(model="gpt-5-mini", base_url=OPENAI, api_key=KEY) as rlm:
        fits = rlm.estimate("What?", "word " * 10_000)
        too_long = rlm.estimate("What?", {"a": "word " * 1_000_000})
    assert (fits.fits, too_long.fits) == (True, False)
    assert fits.cost_usd == pytest.approx(Decimal("0.0051"), rel=Decimal("0.1"))
    assert too_long.cost_usd is None


def test_without_the_list_all_is_unknown_but_what_is_given(monkeypatch):
    monkeypatch.setattr("rlm_kernel.models.windows.price_list", lambda: None)
    monkeypatch.setattr(prices, "price_list", lambda: None)
    model = OpenAIModel("gpt-5-mini", base_url=OPENAI, api_key=KEY)
    with RLM(model=model, options=ModelOptions(context_window=5000)) as rlm:
        assert rlm.estimate("What?", "word" * 10) == Estimate("gpt-5-mini", 12, 5000)
        assert "price of gpt-5-mini not known" in str(rlm.estimate("What?"))


def test_no_list_is_asked_about_this_machine(monkeypatch):
    monkeypatch.setattr(prices, "price_list", lambda: pytest.fail("the list was loaded"))
    monkeypatch.setattr("rlm_kernel.models.windows.price_list", lambda: pytest.fail("the list was loaded"))
    with RLM(model="gpt-5-mini", base_url="http://127.0.0.1:9/v1") as rlm:
        assert rlm.estimate("What?") == Estimate("gpt-5-mini", 2)


def test_a_wrong_question_is_refused_as_by_a_run():
    with RLM(model=ScriptedModel([])) as rlm, pytest.raises(InputError):
        rlm.estimate(" ", "text")


def test_several_contexts_add_up():
    model = ScriptedModel([], window=1_000_000, prices={"scripted": Price(1, 1)})
    with RLM(model=model) as rlm:
        estimate = rlm.estimate("What?", contexts={"old": "word" * 100, "new": ["word"] * 100})
    assert estimate == Estimate("scripted", 252, 1_000_000, Decimal("0.001252"))


@pytest.mark.parametrize("estimate", [None, Estimate("m", 5, 100, Decimal("0.25")), Estimate("m")])
def test_it_survives_the_trajectory(estimate):
    event = RunStarted(run="r1", query="q", model="m", sub_model="m", repl="local", estimate=estimate)
    assert from_json(json.loads(json.dumps(to_json(event)))) == event
