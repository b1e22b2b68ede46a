"""The Responses format as a server speaks it, for `rlm_kernel.models.server`.

Where a request asks for encrypted reasoning, each reply is preceded by an item of it; what comes back is held
to what was given out, and to the message that followed it, as endpoints do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import RequestRefusedError
from ..messages import ImagePart, Message, Part, TextPart
from ..usage import Usage
from .base import ModelOptions, Reply, Request

if TYPE_CHECKING:
    from .server import Fault, Served

__all__ = ["read_request", "thought", "write_events", "write_reply"]

_KNOWN = {"model", "input", "stream", "store", "include", "temperature", "reasoning", "max_output_tokens"}
_KNOWN |= {"text", "prompt_cache_key"}


def thought(number: int) -> str:
    """Return the encrypted content that goes with the reply to request ``number``."""
    return f"encrypted-thought-{number}"


def read_request(body: Mapping[str, Any], number: int) -> Request:
    """Return what request ``number`` asks for.

    Raises:
        RequestRefusedError: an item that is no message, or reasoning that was not given out or stands alone.
    """
    given = body["input"]
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    messages: list[Message] = []
    for place, item in enumerate(items):
        if isinstance(item, dict) and item.get("type") == "reasoning":
            following = items[place + 1] if place + 1 < len(items) else {}
            if str(item.get("encrypted_content")) not in map(thought, range(1, number)):
                raise RequestRefusedError("The encrypted content could not be verified.")
            if following.get("type") != "message":
                raise RequestRefusedError(
                    f"Item {item.get('id')!r} was provided without its required following item."
                )
        else:
            messages.append(_message(item))
    text = body.get("text") or {}
    return Request(
        messages,
        ModelOptions(
            temperature=body.get("temperature"),
            max_output_tokens=body.get("max_output_tokens"),
            reasoning_effort=(body.get("reasoning") or {}).get("effort"),
            extra_body={name: value for name, value in body.items() if name not in _KNOWN},
        ),
        (text.get("format") or {}).get("schema"),
        body.get("prompt_cache_key"),
    )


def _message(item: Any) -> Message:
    if not isinstance(item, dict) or item.get("role") not in ("system", "developer", "user", "assistant"):
        raise RequestRefusedError(f"Cannot determine type of the item {str(item)[:80]}")
    content = item.get("content")
    if isinstance(content, list):
        parts: list[Part] = [
            ImagePart(type="image_url", image_url={"url": str(part.get("image_url"))})
            if part.get("type") == "input_image"
            else TextPart(type="text", text=str(part.get("text")))
            for part in content
        ]
        one = len(parts) == 1 and parts[0]["type"] == "text"
        content = content[0]["text"] if one else parts
    if not isinstance(content, str | list):
        raise RequestRefusedError("an item without content")
    return {"role": "system" if item["role"] == "developer" else item["role"], "content": content}


def write_reply(reply: Reply, words: list[str], served: Served, fault: Fault | None) -> bytes:
    """Return the body of a whole reply, spoilt as ``fault`` says."""
    kind = fault.kind if fault else None
    if kind == "garbage":
        return b"<html>not what you wanted</html>"
    if fault and kind == "error":
        return _dump({"error": {"message": fault.message, "code": fault.status}})
    return _dump(_response(reply, words, served, kind))


def write_events(reply: Reply, words: list[str], served: Served, fault: Fault | None) -> bytes:
    """Return the events of a streamed reply, spoilt as ``fault`` says."""
    kind = fault.kind if fault else None
    if kind == "garbage":
        return b"event: response.created\ndata: {not what you wanted\n\n"
    response = _response(reply, words, served, kind)
    head = {**response, "status": "in_progress", "output": [], "usage": None}
    events: list[dict[str, Any]] = [{"type": "response.created", "response": head}]
    if fault and kind == "error":
        events.append({"type": "error", "code": fault.status, "message": fault.message})
    elif kind != "empty":
        if kind != "null":
            events += [{"type": "response.output_text.delta", "delta": word} for word in words]
        events += [{"type": "response.output_item.done", "item": item} for item in response["output"]]
    if kind != "error":
        events.append({"type": f"response.{response['status']}", "response": response})
    return b"".join(
        b"event: %b\ndata: %b\n\n" % (event["type"].encode(), _dump({**event, "sequence_number": number}))
        for number, event in enumerate(events)
    )


def _response(reply: Reply, words: list[str], served: Served, fault: str | None) -> dict[str, Any]:
    number = served.number
    content = [{"type": "output_text", "text": "".join(words), "annotations": []}]
    output: list[dict[str, Any]] = []
    if "reasoning.encrypted_content" in (served.body.get("include") or ()):
        output.append(
            {"type": "reasoning", "id": f"rs_{number}", "summary": [], "encrypted_content": thought(number)}
        )
    message = {"type": "message", "id": f"msg_{number}", "role": "assistant", "status": "completed"}
    output.append({**message, "content": [] if fault == "null" else content})
    cause = {"length": "max_output_tokens"}.get(reply.finish_reason, reply.finish_reason)
    whole = reply.finish_reason == "stop"
    return {
        "id": f"resp_{number}",
        "object": "response",
        "created_at": 0,
        "status": "completed" if whole else "incomplete",
        "error": None,
        "incomplete_details": None if whole else {"reason": cause},
        "model": reply.model,
        "output": [] if fault == "empty" else output,
        "usage": _usage(reply.usage),
    }


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def _dump(body: Any) -> bytes:
    return json.dumps(body).encode()
