"""The functions with which code in a cell asks models: each an envelope to the host, and its answer.

Wrong arguments raise here, in words for the model that wrote them, and never reach the host.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator
from typing import Any

from . import describe, encode, image, schemas
from .calls import PIECE_BYTES, Host, failure

__all__ = ["kind", "queries"]

# A context up to this size goes with its call, a larger one ahead of it.
WITH_CALL_BYTES = PIECE_BYTES // 16


def queries(host: Host) -> dict[str, Any]:
    """Return the functions that ask, by the names that cells know them under."""
    return {**_model_queries(host), **_child_queries(host)}


def _model_queries(host: Host) -> dict[str, Any]:
    def llm_query(prompt: Any, *, model: str | None = None, schema: Any = None) -> Any:
        """Ask the sub-model one question; return its reply as text, or as the value of a schema."""
        args = _options({"prompt": _prompt(prompt)}, model, schema)
        return schemas.revived(host.ask("llm_query", args), schema)

    async def allm_query(prompt: Any, *, model: str | None = None, schema: Any = None) -> Any:
        """Ask the sub-model one question; awaitable."""
        args = _options({"prompt": _prompt(prompt)}, model, schema)
        return schemas.revived(await host.ask_async("llm_query", args), schema)

    def llm_query_batched(prompts: Iterable[Any], *, model: str | None = None, schema: Any = None) -> Any:
        """Ask many questions at once; return the replies in order, a CallFailed where one failed."""
        args = _options({"prompts": _prompts(prompts)}, model, schema)
        return _slots(host.ask("llm_query_batched", args), schema) if args["prompts"] else []

    async def allm_query_batched(
        prompts: Iterable[Any], *, model: str | None = None, schema: Any = None
    ) -> Any:
        """Ask many questions at once; awaitable."""
        args = _options({"prompts": _prompts(prompts)}, model, schema)
        return _slots(await host.ask_async("llm_query_batched", args), schema) if args["prompts"] else []

    def budget() -> Any:
        """Return what is left of the run's budget, as a dict; None means no cap."""
        return host.ask("budget")

    return {
        "llm_query": llm_query,
        "allm_query": allm_query,
        "llm_query_batched": llm_query_batched,
        "allm_query_batched": allm_query_batched,
        "budget": budget,
    }


def _child_queries(host: Host) -> dict[str, Any]:
    def rlm_query(query: str, context: Any = None, *, model: str | None = None) -> Any:
        """Let a child with a REPL of its own answer ``query`` over ``context``."""
        frames: list[bytes] = []
        item = _item(host, query, context, frames)
        return host.ask("rlm_query", _options({"item": item}, model), frames)

    async def arlm_query(query: str, context: Any = None, *, model: str | None = None) -> Any:
        """Let a child answer ``query`` over ``context``; awaitable."""
        frames: list[bytes] = []
        item = _item(host, query, context, frames)
        return await host.ask_async("rlm_query", _options({"item": item}, model), frames)

    def rlm_query_batched(items: Iterable[Any], *, model: str | None = None) -> Any:
        """Let children answer (query, context) pairs at once; return the answers in order."""
        frames: list[bytes] = []
        args = _options({"items": _items(host, items, frames)}, model)
        return _slots(host.ask("rlm_query_batched", args, frames)) if args["items"] else []

    async def arlm_query_batched(items: Iterable[Any], *, model: str | None = None) -> Any:
        """Let children answer (query, context) pairs at once; awaitable."""
        frames: list[bytes] = []
        args = _options({"items": _items(host, items, frames)}, model)
        return _slots(await host.ask_async("rlm_query_batched", args, frames)) if args["items"] else []

    return {
        "rlm_query": rlm_query,
        "arlm_query": arlm_query,
        "rlm_query_batched": rlm_query_batched,
        "arlm_query_batched": arlm_query_batched,
        "recursive_lm": rlm_query,
        "arecursive_lm": arlm_query,
    }


def _options(args: dict[str, Any], model: str | None = None, schema: Any = None) -> dict[str, Any]:
    if model is not None:
        args["model"] = model
    if schema is not None:
        args["schema"] = schemas.as_json(schema)
    return args


def _prompts(prompts: Iterable[Any]) -> list[Any]:
    if isinstance(prompts, (str, bytes)):
        raise TypeError("llm_query_batched takes a list of prompts, not one text")
    return [_prompt(each) for each in prompts]


def _prompt(prompt: Any) -> Any:
    """Return a prompt as JSON: text, or a list of texts and images."""
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, (list, tuple)) and prompt:
        return [_part(each) for each in prompt]
    raise TypeError(f"the prompt must be text, not {kind(prompt)}; use str(...) or json.dumps(...)")


def _part(part: Any) -> Any:
    if isinstance(part, image.Image):
        return {"image": b64encode(part.data).decode("ascii"), "mime": part.mime}
    if isinstance(part, str):
        return part
    raise TypeError(f"a prompt's parts must be texts or images, not {kind(part)}")


def _items(host: Host, items: Iterable[Any], frames: list[bytes]) -> list[Any]:
    result = []
    for number, item in enumerate(items):
        pair = (item, None) if isinstance(item, str) else item
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError(f"rlm_query_batched takes (query, context) pairs; item {number} is {kind(pair)}")
        result.append(_item(host, pair[0], pair[1], frames))
    return result


def _item(host: Host, query: str, context: Any, frames: list[bytes]) -> dict[str, Any]:
    """Encode one (query, context) pair; small contexts go with the call, others ahead of it."""
    if not isinstance(query, str):
        raise TypeError(f"the query must be text, not {kind(query)}")
    if context is None:
        return {"query": query, "context": None}
    format_, pieces = encode.encode(context, PIECE_BYTES)
    info = describe.describe(context)
    first = next(pieces, b"")
    second = next(pieces, None)
    sent: dict[str, Any]
    if second is None and len(first) <= WITH_CALL_BYTES:
        frames.append(first)
        sent = {"frame": len(frames) - 1}
    else:
        sent = {"blob": host.upload(format_, _chain(first, second, pieces))}
    return {"query": query, "context": {**sent, "format": format_, "info": info}}


def _chain(first: bytes, second: bytes | None, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    if second is not None:
        yield second
        yield from rest


def _slots(values: Iterable[dict[str, Any]], schema: Any = None) -> list[Any]:
    return [
        failure(each["error"]) if "error" in each else schemas.settled(each["value"], schema)
        for each in values
    ]


def kind(value: Any) -> str:
    """Return a value's type and, where it has one, its length, in words."""
    name = type(value).__name__
    try:
        return f"{name} of length {len(value):,}"
    except Exception:  # noqa: BLE001  an edge: objects of model-written classes raise anything
        return name
