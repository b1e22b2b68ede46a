"""Reading what endpoints send, told-apart failures, and the gate: the parts under `OpenAIModel`."""

import asyncio
import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_kernel import errors
from rlm_kernel.messages import sendable
from rlm_kernel.models.base import ModelOptions, Request
from rlm_kernel.models.chat import Draft, NotAReplyError, encode, read_usage, request_body
from rlm_kernel.models.failures import Failure, refused, unreachable
from rlm_kernel.models.gate import Gate
from rlm_kernel.models.retry import Backoff
from rlm_kernel.usage import Usage

ASK = Request([{"role": "user", "content": "12345678"}])


def read(*chunks, streamed=False):
    draft = Draft()
    for chunk in chunks:
        draft.add(chunk)
    return draft.reply(ASK, "asked", 1, streamed=streamed)


def body(message, **choice):
    return {"choices": [{"message": message, **choice}]}


def delta(message, **choice):
    return {"choices": [{"delta": message, **choice}]}


def test_missing_fields_get_stand_ins():
    reply = read(body({"content": "abcde"}))
    assert (reply.model, reply.finish_reason, reply.text) == ("asked", "stop", "abcde")
    assert reply.usage == Usage(2, 2, cost_usd=None)


def test_parts_refusals_and_thoughts():
    parts = [{"type": "text", "text": "a"}, {"type": "thinking"}, {"type": "text", "text": "b"}]
    assert read(body({"content": parts})).text == "ab"
    assert read(body({"content": None, "refusal": "I can't"})).text == "I can't"
    assert read(body({"content": "x", "reasoning_content": "hm"})).reasoning == "hm"
    assert read(body({"content": "x", "reasoning": "hm"})).reasoning == "hm"


def test_a_stream_is_put_together():
    reply = read(
        delta({"role": "assistant", "content": ""}),
        delta({"reasoning_content": "let me "}),
        delta({"reasoning_content": "see"}),
        {**delta({"content": "one "}), "model": "exact-name"},
        delta({"content": "two"}),
        delta({}, finish_reason="stop"),
        {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}},
        streamed=True,
    )
    assert (reply.text, reply.reasoning, reply.model) == ("one two", "let me see", "exact-name")
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (7, 3)


@pytest.mark.parametrize(
    "chunks",
    [
        ({"choices": []},),
        ({},),
        (body({"content": None}),),
        (body({}),),
        (body({"content": "", "reasoning_content": "hm"}),),
        (body({"content": None, "reasoning_content": "hm"}),),
        ([],),
        ("text",),
        (None,),
        ({"error": "overloaded"},),
        ({"choices": [{"error": {"message": "overloaded"}}]},),
        (),
    ],
)
def test_what_is_no_reply(chunks):
    with pytest.raises(NotAReplyError):
        read(*chunks)


def test_an_empty_text_that_is_meant():
    assert read(body({"content": ""})).text == ""
    assert read(body({"content": None}, finish_reason="content_filter")).finish_reason == "content_filter"
    cut = body({"content": None, "reasoning_content": "hm"}, finish_reason="length")
    assert (read(cut).text, read(cut).reasoning) == ("", "hm")
    assert read(body({"content": None, "tool_calls": [{}]}, finish_reason="tool_calls")).text == ""


def test_a_stream_that_just_stops():
    with pytest.raises(NotAReplyError, match="before it was finished"):
        read(delta({"content": "one"}), streamed=True)


def test_an_error_in_the_body_may_name_its_status():
    with pytest.raises(NotAReplyError) as caught:
        read({"error": {"message": "slow down", "code": 429}})
    assert (caught.value.status, "slow down" in str(caught.value)) == (429, True)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({}, Usage(0, 0, cost_usd=None)),
        ({"prompt_tokens": None, "prompt_tokens_details": None}, Usage(0, 0, cost_usd=None)),
        ({"prompt_tokens": -5, "completion_tokens": "many"}, Usage(0, 0, cost_usd=None)),
        ({"prompt_tokens": 9.0, "completion_tokens": True}, Usage(9, 1, cost_usd=None)),
        (
            {"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 99}},
            Usage(9, 0, 9, cost_usd=None),
        ),
        ({"prompt_tokens": 9, "prompt_cache_hit_tokens": 4}, Usage(9, 0, 4, cost_usd=None)),
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 5,
                "completion_tokens_details": {"reasoning_tokens": 2},
                "cost": 0.0125,
            },
            Usage(9, 5, 0, 2, Decimal("0.0125")),
        ),
        ({"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 20}, Usage(9, 11, cost_usd=None)),
        ({"cost": float("nan")}, Usage(cost_usd=None)),
        ({"cost": "free"}, Usage(cost_usd=None)),
    ],
)
def test_usage_is_read_in_every_dialect(usage, expected):
    assert read_usage(usage, ASK.messages, 0) == expected


NAMES = [
    *("choices", "message", "delta", "content", "usage", "error", "code", "finish_reason", "cost", "model"),
    *("prompt_tokens", "completion_tokens", "prompt_tokens_details", "cached_tokens", "text", "tool_calls"),
]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_any_json_is_a_reply_or_none(value):
    try:
        reply = read(value)
    except NotAReplyError:
        return
    assert isinstance(reply.text, str)
    assert reply.usage.input_tokens >= reply.usage.cached_tokens >= 0


def strict(schema):
    asked = Request(ASK.messages, schema=schema)
    sent = request_body("m", asked, ModelOptions(), token_limit="max_tokens", cache_key=False)
    return sent["response_format"]["json_schema"]["strict"]


def test_strict_mode_only_for_schemas_that_it_takes():
    inner = {"type": "object", "properties": {"b": {}}, "required": ["b"], "additionalProperties": False}
    assert strict({**inner, "properties": {"b": inner}})
    assert not strict({**inner, "required": []})
    assert not strict({**inner, "properties": {"b": {"type": "object"}}})
    assert not strict({"type": "object", "anyOf": [inner, {"type": "object"}]})


def refuse(status, text="", headers=None, secrets=()):
    return refused(status, headers or {}, text, place="host", secrets=secrets)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"error": {"message": "no such thing", "code": "x"}}', "no such thing"),
        ('{"error": "no such thing"}', "no such thing"),
        ('{"message": "no such thing"}', "no such thing"),
        ('{"detail": [{"loc": ["a"], "msg": "no such thing"}]}', "no such thing"),
        ("<html>\n no such   thing", "<html> no such thing"),
        ("[" * 100_000, "[[["),
        ("", "host answered 400"),
        ("null", "host answered 400"),
    ],
)
def test_what_the_server_says_is_shown(text, said):
    assert said in refuse(400, text).reason


def test_long_messages_are_cut_and_secrets_taken_out_first():
    failure = refuse(400, "y" * 290 + "sk-canary-0123456789", secrets=["sk-canary-0123456789"])
    assert "sk-" not in failure.reason
    assert len(failure.reason) < 340


def test_hints_fit_what_happened():
    assert "smaller pieces" in refuse(400, '{"error": {"code": "context_length_exceeded"}}').hint
    assert "smaller pieces" in refuse(413).hint
    assert "credit" in refuse(402).hint
    assert "base URL" in refuse(301).hint
    assert "base URL" in refuse(404).hint
    quota = refuse(429, json.dumps({"error": {"code": "insufficient_quota", "message": "m"}}))
    assert (quota.kind, quota.retry, "billing" in quota.hint) == (errors.RateLimitError, False, True)
    untrusted = unreachable("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed", place="host", secrets=())
    assert not untrusted.retry


def test_an_error_tells_its_attempts():
    error = Failure(errors.EndpointError, "it broke", "try later", 500).error("m", 3)
    assert (str(error), error.hint) == ("m: it broke (3 attempts)", "try later")


def test_backoff_stays_in_bounds_for_any_number_of_failures():
    backoff = Backoff(random=lambda: 1.0)
    assert [backoff.seconds(n, None) for n in (1, 5, 6, 5000)] == [1, 16, 20, 20]


async def entered(gate, count):
    """Return tasks that hold a place, or wait for one, after one pass of the loop."""
    tasks = [asyncio.create_task(gate.enter()) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


async def test_gate_admits_up_to_its_cap_in_order():
    gate = Gate(2)
    tasks = await entered(gate, 4)
    assert [task.done() for task in tasks] == [True, True, False, False]
    gate.leave(0, 200)
    await asyncio.sleep(0)
    assert [task.done() for task in tasks] == [True, True, True, False]
    gate.leave(0, 200)
    gate.leave(0, 200)
    await tasks[3]
    gate.leave(0, 200)
    assert gate.in_flight == 0


async def test_gate_halves_once_for_requests_that_were_in_flight_together():
    gate = Gate(64)
    await entered(gate, 16)
    for _ in range(16):
        gate.leave(0, 429)
    assert gate.cap == 8
    ticket = await gate.enter()
    gate.leave(ticket, 429)
    assert gate.cap == 1
    for _ in range(400):
        gate.leave(await gate.enter(), 200)
    assert gate.cap == 64


async def test_other_failures_leave_the_gate_as_it_is():
    gate = Gate(64)
    gate.leave(await gate.enter(), 429)
    for status in (None, 500):
        gate.leave(await gate.enter(), status)
    assert (gate.cap, gate.in_flight) == (1, 0)


@pytest.mark.parametrize("granted", [False, True])
async def test_a_cancelled_wait_gives_its_place_on(granted):
    gate = Gate(1)
    await gate.enter()
    first, second = await entered(gate, 2)
    if granted:
        gate.leave(0, 200)
    first.cancel()
    if not granted:
        gate.leave(0, 200)
    await second
    assert first.cancelled()
    assert gate.in_flight == 1


texts = st.text(max_size=8)


@given(st.lists(st.lists(texts, min_size=1, max_size=3), max_size=6), st.data())
def test_a_conversation_is_written_the_same_with_and_without_a_memo(additions, data):
    memo = {}
    messages = []
    for new in additions:
        messages += [{"role": "user", "content": text} for text in new]
        if data.draw(st.booleans(), label="compacted"):
            del messages[1:-1]
        asked = [Request(tuple(messages), memo=each) for each in (memo, None)]
        one, two = (
            encode(request_body("m", each, ModelOptions(), token_limit="max_tokens", cache_key=False))
            for each in asked
        )
        assert one == two
        assert [each["content"] for each in json.loads(one)["messages"]] == [
            sendable(each["content"]) for each in messages
        ]


def test_extra_body_may_replace_the_messages():
    asked = Request(ASK.messages, ModelOptions(extra_body={"messages": []}))
    body = request_body("m", asked, ModelOptions(), token_limit="max_tokens", cache_key=False)
    assert json.loads(encode(body)) == {"model": "m", "messages": []}
