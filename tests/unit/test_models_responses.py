"""What only the Responses API has: thoughts that are carried along, and its own ways to end."""

import json

import pytest

from rlm_kernel import errors
from rlm_kernel.models.base import Carried, Reply, Request
from rlm_kernel.models.chat import NotAReplyError
from rlm_kernel.models.openai import OpenAIModel
from rlm_kernel.models.responses import ResponseDraft, ResponsesModel
from rlm_kernel.models.retry import Backoff
from rlm_kernel.models.scripted import ScriptedModel
from rlm_kernel.models.served_responses import thought
from rlm_kernel.models.server import Fault, ScriptedServer

ASK = {"role": "user", "content": "What is 6 times 7?"}
AGAIN = {"role": "user", "content": "Are you sure?"}


async def no_wait(seconds):
    pass


def serve(fault=None):
    replies = {"m": ScriptedModel(lambda _: "It is 42", name="m")}
    return ScriptedServer(replies, fault=fault)


def model_at(server, name="m", **options):
    return ResponsesModel(name, base_url=server.base_url, backoff=Backoff(sleep=no_wait), **options)


async def streamed(model, request):
    *_, reply = [piece async for piece in model.stream(request)]
    assert isinstance(reply, Reply)
    return reply


def second(first, *carried):
    """Return the request after ``first``'s reply."""
    return Request([ASK, {"role": "assistant", "content": first.text}, AGAIN], carried=carried)


async def test_thoughts_go_back_with_the_message_they_led_to():
    async with serve() as server:
        model = model_at(server)
        first = await streamed(model, Request([ASK]))
        await streamed(model, second(first, first.carried))
    sent = server.requests[1].body["input"]
    assert [item["type"] for item in sent] == ["message", "reasoning", "message", "message"]
    assert sent[1]["encrypted_content"] == thought(1)
    assert sent[2]["content"][0]["text"] == "It is 42"
    assert not any(request.body["store"] for request in server.requests)


async def test_sub_calls_ask_for_no_thoughts():
    async with serve() as server:
        assert (await model_at(server).reply(Request([ASK]))).carried is None
    assert "include" not in server.requests[0].body


@pytest.mark.parametrize(
    "other",
    [
        lambda server: ResponsesModel("m", base_url=server.base_url.replace("127.0.0.1", "localhost")),
        lambda server: model_at(server, "n"),
        lambda server: OpenAIModel("m", base_url=server.base_url),
    ],
    ids=["another endpoint", "another model", "chat"],
)
async def test_thoughts_go_to_no_other_model(other):
    async with ScriptedServer({name: ScriptedModel(lambda _: "yes", name=name) for name in "mn"}) as server:
        first = await streamed(model_at(server), Request([ASK]))
        await streamed(other(server), second(first, first.carried))
    assert thought(1) not in json.dumps(server.requests[1].body)


async def test_a_reply_that_was_cut_goes_back_without_thoughts():
    async with serve() as server:
        first = await streamed(model_at(server), Request([ASK]))
        cut = Reply("It is", first.usage, "m")
        await streamed(model_at(server), second(cut, first.carried))
    assert [item["type"] for item in server.requests[1].body["input"]] == ["message"] * 3


async def test_equal_replies_keep_their_own_thoughts():
    async with serve() as server:
        model = model_at(server)
        one = await streamed(model, Request([ASK]))
        two = await streamed(model, second(one, one.carried))
        said = {"role": "assistant", "content": "It is 42"}
        await streamed(model, Request([ASK, said, AGAIN, said, AGAIN], carried=(one.carried, two.carried)))
    ids = [item["id"] for item in server.requests[2].body["input"] if item["type"] == "reasoning"]
    assert ids == ["rs_1", "rs_2"]


def test_nobody_sees_the_thoughts():
    assert "secret" not in repr(Carried(("a", "b"), "text", ({"encrypted_content": "secret"},)))


async def test_an_endpoint_without_encrypted_thoughts_is_asked_without_from_then_on():
    def refuse(served):
        asks = "include" in served.body
        return (
            Fault("status", 400, message="Encrypted content is not supported with this model.")
            if asks
            else None
        )

    async with serve(refuse) as server:
        model = model_at(server)
        first = await streamed(model, Request([ASK]))
        assert (first.text, first.carried, first.attempts) == ("It is 42", None, 2)
        assert (await streamed(model, Request([ASK]))).attempts == 1
    assert ["include" in request.body for request in server.requests] == [True, False, False]


async def test_thoughts_that_the_endpoint_no_longer_knows_are_left_out():
    async with serve() as server:
        model = model_at(server)
        stale = {"type": "reasoning", "id": "rs_0", "encrypted_content": "of another day"}
        carried = Carried((server.base_url, "m"), "It is 42", (stale, {"type": "message"}))
        reply = await streamed(model, second(Reply("It is 42", None, "m"), carried))
    assert (reply.text, reply.attempts) == ("It is 42", 2)


async def test_another_refusal_is_an_error():
    async with serve(lambda _: Fault("status", 400, message="no such option")) as server:
        with pytest.raises(errors.RequestRefusedError):
            await streamed(model_at(server), Request([ASK]))
    assert len(server.requests) == 1


def response(**fields):
    message = {"type": "message", "content": [{"type": "output_text", "text": "Hello"}]}
    return {"object": "response", "status": "completed", "model": "m-1", "output": [message], **fields}


def draft_of(*data):
    draft = ResponseDraft(origin=("e", "m"))
    shown = "".join(map(draft.add, data))
    return draft, shown


def reply_of(*data):
    draft, shown = draft_of(*data)
    reply = draft.reply(Request([ASK]), "m", 1, streamed=True)
    assert reply.text == shown
    return reply


def test_a_whole_response():
    usage = {
        "input_tokens": 100,
        "output_tokens": 30,
        "total_tokens": 130,
        "input_tokens_details": {"cached_tokens": 64},
        "output_tokens_details": {"reasoning_tokens": 20},
    }
    thoughts = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]}
    reply = reply_of(response(usage=usage, output=[thoughts, *response()["output"]]))
    counted = reply.usage
    assert (counted.input_tokens, counted.output_tokens) == (100, 30)
    assert (counted.cached_tokens, counted.reasoning_tokens) == (64, 20)
    assert (reply.text, reply.reasoning, reply.model, reply.finish_reason) == ("Hello", "Hm.", "m-1", "stop")
    assert reply.carried is None  # without content, an id means nothing to an endpoint that stores nothing


@pytest.mark.parametrize(
    ("details", "finish"),
    [
        ({"reason": "max_output_tokens"}, "length"),
        ({"reason": "content_filter"}, "content_filter"),
        (None, "length"),
    ],
)
def test_an_incomplete_response_says_why(details, finish):
    done = {
        "type": "response.incomplete",
        "response": response(status="incomplete", incomplete_details=details, output=[]),
    }
    reply = reply_of({"type": "response.output_text.delta", "delta": "Hel"}, done)
    assert (reply.text, reply.finish_reason) == ("Hel", finish)


def test_the_end_repeats_no_text_and_may_bring_it():
    delta = {"type": "response.output_text.delta", "delta": "Hello"}
    done = {"type": "response.completed", "response": response()}
    assert reply_of(delta, done).text == reply_of(done).text == "Hello"
    # Some servers leave the output out at the end, having sent its items before.
    item = {"type": "response.output_item.done", "item": response()["output"][0]}
    assert reply_of(item, {"type": "response.completed", "response": response(output=[])}).text == "Hello"


def test_several_messages_and_refusals_are_one_text():
    parts = [[{"type": "output_text", "text": "One. "}], [{"type": "refusal", "refusal": "Two."}]]
    output = [{"type": "message", "content": each} for each in parts]
    assert reply_of(response(output=output)).text == "One. Two."


def test_what_is_no_message_adds_nothing():
    reply = reply_of(response(output=[{"type": "function_call", "name": "f"}, None, 3, {"type": None}]))
    assert reply.text == ""


@pytest.mark.parametrize(
    ("data", "status"),
    [
        ({"type": "error", "code": "rate_limit_exceeded", "message": "slow down"}, 429),
        ({"type": "error", "code": 503, "message": "slow down"}, 503),
        ({"type": "error", "error": {"code": "server_error", "message": "slow down"}}, 500),
        (
            {
                "type": "response.failed",
                "response": {"error": {"code": "server_error", "message": "slow down"}},
            },
            500,
        ),
        ({"type": "response.failed", "response": {"status": "failed", "error": "slow down"}}, None),
        ({"status": "failed", "error": {"code": "invalid_prompt", "message": "slow down"}}, 400),
    ],
)
def test_failures_have_a_status(data, status):
    with pytest.raises(NotAReplyError, match="slow down") as caught:
        draft_of(data)
    assert caught.value.status == status


@pytest.mark.parametrize("data", [None, [], "text", {"type": "response.completed"}])
def test_what_is_no_response_is_refused(data):
    with pytest.raises(NotAReplyError):
        draft_of(data)
