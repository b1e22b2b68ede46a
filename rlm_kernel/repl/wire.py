"""The envelopes that travel between a kernel and the host, on the host's side.

Whatever a kernel sends is guest data. `parse` turns it into one of the types below or raises
`WireError`; it never fails in another way, whatever the bytes. Sizes are capped before they are read.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import CallError, WireError
from ..messages import ImagePart, Part, TextPart
from .base import BudgetQuery, FinalAnswer, LLMQuery, ToolCall

__all__ = [
    "VERSION",
    "Abandon",
    "CellReport",
    "ContextRef",
    "Envelope",
    "Hello",
    "Put",
    "RLMItems",
    "Ready",
    "encode_reply",
    "parse",
    "slots",
]

VERSION = 1
MAX_TEXT = 64 * 1024 * 1024
MAX_BATCH = 10_000
MAX_ID = 64
MAX_QUOTES = 1000
MAX_QUOTE = 20_000
MAX_ARGUMENTS = 1000
_IMAGE_TYPES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})


@dataclass(frozen=True, slots=True)
class ContextRef:
    """A sub-context: its encoded bytes (``data``), or the number of an upload that came before (``blob``)."""

    format: str
    info: Mapping[str, Any]
    data: bytes | None = None
    blob: str | None = None


@dataclass(frozen=True, slots=True)
class RLMItems:
    """``rlm_query`` before its contexts are put together."""

    items: tuple[tuple[str, ContextRef | None], ...]
    batched: bool
    model: str | None


@dataclass(frozen=True, slots=True)
class Hello:
    """The guest is installed and asks for a probe of the control channel."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The guest is hooked in; what the kernel can do."""

    implementation: str
    capabilities: Mapping[str, bool]


@dataclass(frozen=True, slots=True)
class CellReport:
    """What the guest found after a cell."""

    final: FinalAnswer | None
    draft: str
    variables: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Put:
    """A piece of a context that is to be used by a later call."""

    blob: str
    number: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Abandon:
    """The cell no longer waits for a call."""

    call: str


Body = LLMQuery | RLMItems | BudgetQuery | ToolCall | Hello | Ready | CellReport | Put | Abandon


@dataclass(frozen=True, slots=True)
class Envelope:
    """One request of a kernel: its id, under which it is answered, and what it asks."""

    id: str
    body: Body


def parse(text: str, buffers: Sequence[memoryview | bytes] = ()) -> Envelope:
    """Return the envelope in ``text``.

    Raises:
        WireError: ``text`` is no envelope of this version, or breaks the schema of its op.
    """
    if len(text) > MAX_TEXT:
        raise WireError(f"envelope of {len(text):,} characters, more than {MAX_TEXT:,}")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WireError(f"envelope is not JSON: {type(error).__name__}") from None
    if not isinstance(data, dict) or data.get("rlm") != VERSION:
        raise WireError("not an envelope of this version")
    id_ = _text(data, "id", MAX_ID)
    reader = _READERS.get(_text(data, "op", MAX_ID))
    if reader is None:
        raise WireError(f"unknown op {data['op']!r}")
    return Envelope(id_, reader(data, _frames(data, buffers)))


def encode_reply(id_: str, outcome: Any) -> dict[str, Any]:
    """Return the reply envelope for ``outcome``: a JSON value, or a `CallError`."""
    if isinstance(outcome, CallError):
        return {"rlm": VERSION, "id": id_, "ok": False, "error": _error(outcome)}
    return {"rlm": VERSION, "id": id_, "ok": True, "value": outcome}


def slots(outcomes: Sequence[Any | CallError]) -> list[dict[str, Any]]:
    """Return a batch's outcomes as JSON, failed ones apart from values."""
    return [{"error": _error(each)} if isinstance(each, CallError) else {"value": each} for each in outcomes]


def _error(error: CallError) -> dict[str, str]:
    return {"kind": error.kind, "message": str(error)}


def _frames(data: Mapping[str, Any], buffers: Sequence[memoryview | bytes]) -> Sequence[memoryview | bytes]:
    """Buffers, or their base64 form from kernels whose stdin carries text only."""
    texts = data.get("frames")
    if texts is None:
        return buffers
    if not isinstance(texts, list) or not all(isinstance(each, str) for each in texts):
        raise WireError("frames must be a list of base64 texts")
    try:
        return [base64.b64decode(each, validate=True) for each in texts]
    except (binascii.Error, ValueError):
        raise WireError("a frame is not base64") from None


def _frame(frames: Sequence[memoryview | bytes], index: Any) -> bytes:
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(frames):
        raise WireError(f"no frame of number {index!r}")
    return bytes(frames[index])


def _text(data: Mapping[str, Any], key: str, limit: int) -> str:
    value = data.get(key)
    if not isinstance(value, str) or not value or len(value) > limit:
        raise WireError(f"{key!r} must be a text of 1 to {limit} characters")
    return value


def _optional_text(data: Mapping[str, Any], key: str) -> str | None:
    return None if data.get(key) is None else _text(data, key, 200)


def _list(data: Mapping[str, Any], key: str) -> list[Any]:
    value = data.get(key)
    if not isinstance(value, list) or not 0 < len(value) <= MAX_BATCH:
        raise WireError(f"{key!r} must be a list of 1 to {MAX_BATCH:,}")
    return value


def _prompt(value: Any, frames: Sequence[memoryview | bytes]) -> str | list[Part]:
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and set(value) == {"$frame"}:
        try:
            return _frame(frames, value["$frame"]).decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise WireError("a prompt is not UTF-8") from None
    if isinstance(value, list) and value:
        return [_part(each, frames) for each in value]
    raise WireError("a prompt must be a text, or a list of texts and images")


def _part(value: Any, frames: Sequence[memoryview | bytes]) -> Part:
    if isinstance(value, dict) and isinstance(value.get("image"), str) and value.get("mime") in _IMAGE_TYPES:
        return ImagePart(type="image_url", image_url={"url": f"data:{value['mime']};base64,{value['image']}"})
    text = _prompt(value, frames)
    if not isinstance(text, str):
        raise WireError("a part of a prompt must be a text or an image")
    return TextPart(type="text", text=text)


def _schema(data: Mapping[str, Any]) -> Mapping[str, Any] | None:
    schema = data.get("schema")
    if schema is not None and not isinstance(schema, dict):
        raise WireError("'schema' must be a JSON schema")
    return schema


def _llm_query(data: Mapping[str, Any], frames: Sequence[memoryview | bytes]) -> LLMQuery:
    prompt = _prompt(data.get("prompt"), frames)
    return LLMQuery((prompt,), model=_optional_text(data, "model"), schema=_schema(data))


def _llm_query_batched(data: Mapping[str, Any], frames: Sequence[memoryview | bytes]) -> LLMQuery:
    prompts = tuple(_prompt(each, frames) for each in _list(data, "prompts"))
    return LLMQuery(prompts, batched=True, model=_optional_text(data, "model"), schema=_schema(data))


def _item(value: Any, frames: Sequence[memoryview | bytes]) -> tuple[str, ContextRef | None]:
    if not isinstance(value, dict):
        raise WireError("an item must be an object")
    query = _prompt(value.get("query"), frames)
    if not isinstance(query, str) or not query.strip():
        raise WireError("a query must be a text that is not empty")
    context = value.get("context")
    if context is None:
        return query, None
    if not isinstance(context, dict) or not isinstance(context.get("info"), dict):
        raise WireError("a context must be an object with a description")
    format_ = _text(context, "format", 20)
    if "frame" in context:
        return query, ContextRef(format_, context["info"], data=_frame(frames, context["frame"]))
    return query, ContextRef(format_, context["info"], blob=_text(context, "blob", MAX_ID))


def _rlm_query(data: Mapping[str, Any], frames: Sequence[memoryview | bytes]) -> RLMItems:
    return RLMItems((_item(data.get("item"), frames),), batched=False, model=_optional_text(data, "model"))


def _rlm_query_batched(data: Mapping[str, Any], frames: Sequence[memoryview | bytes]) -> RLMItems:
    items = tuple(_item(each, frames) for each in _list(data, "items"))
    return RLMItems(items, batched=True, model=_optional_text(data, "model"))


def _tool(data: Mapping[str, Any], frames: Sequence[memoryview | bytes]) -> ToolCall:
    text = _prompt(data.get("arguments"), frames)
    try:
        given = json.loads(text) if isinstance(text, str) and len(text) <= MAX_TEXT else None
    except (ValueError, RecursionError):
        given = None
    args, kwargs = (given.get("args"), given.get("kwargs")) if isinstance(given, dict) else (None, None)
    if not isinstance(args, list) or not isinstance(kwargs, dict) or len(args) + len(kwargs) > MAX_ARGUMENTS:
        raise WireError(f"'arguments' must be JSON of args and kwargs, {MAX_ARGUMENTS} at most")
    return ToolCall(_text(data, "name", 200), tuple(args), kwargs)


def _put(data: Mapping[str, Any], frames: Sequence[memoryview | bytes]) -> Put:
    number = data.get("number")
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise WireError("'number' must count pieces from 0")
    return Put(_text(data, "blob", MAX_ID), number, _frame(frames, 0))


def _ready(data: Mapping[str, Any], frames: Sequence[memoryview | bytes]) -> Ready:
    capabilities = {name: data.get(name) is True for name in ("control", "buffers")}
    return Ready(_text(data, "implementation", 200), capabilities)


def _cell_report(data: Mapping[str, Any], frames: Sequence[memoryview | bytes]) -> CellReport:
    names = data.get("variables")
    if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
        raise WireError("'variables' must be a list of names")
    draft = data.get("draft")
    final = data.get("final")
    return CellReport(
        final=None if final is None else _final(final),
        draft=draft[:100_000] if isinstance(draft, str) else "",
        variables=tuple(each[:100] for each in names[:200]),
    )


def _final(final: Any) -> FinalAnswer:
    if not isinstance(final, dict) or not isinstance(final.get("text"), str):
        raise WireError("a final answer must have a text")
    value = None
    if isinstance(final.get("json"), str):
        try:
            value = json.loads(final["json"])
        except (ValueError, RecursionError):
            raise WireError("the value of a final answer is not JSON") from None
    return FinalAnswer(final["text"], value, _text(final, "via", 20), _quotes(final.get("quotes", [])))


def _quotes(quotes: Any) -> tuple[str, ...]:
    if not isinstance(quotes, list) or not all(isinstance(each, str) for each in quotes):
        raise WireError("the quotes of a final answer must be a list of texts")
    return tuple(each[:MAX_QUOTE] for each in quotes[:MAX_QUOTES])


_READERS: dict[str, Callable[[Mapping[str, Any], Sequence[memoryview | bytes]], Body]] = {
    "llm_query": _llm_query,
    "llm_query_batched": _llm_query_batched,
    "rlm_query": _rlm_query,
    "rlm_query_batched": _rlm_query_batched,
    "budget": lambda data, frames: BudgetQuery(),
    "tool": _tool,
    "hello": lambda data, frames: Hello(),
    "ready": _ready,
    "cell": _cell_report,
    "put": _put,
    "abandon": lambda data, frames: Abandon(_text(data, "call", MAX_ID)),
}
