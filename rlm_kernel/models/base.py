"""What the engine asks of a model: two methods, one request type, one reply type.

A model is anything with a ``name`` that can turn a `Request` into a `Reply`, at once (`reply`) or as
it is written (`stream`). Implementations retry what is worth retrying themselves; what they raise is
a `rlm_kernel.errors.ModelError` and final. They never see a kernel, a budget or another request.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from ..messages import Message
from ..usage import Usage

__all__ = ["Carried", "Model", "ModelOptions", "Reply", "Request"]


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """How a model is to write, the same for every request at one depth. None leaves it to the endpoint.

    ``context_window`` is not sent: how many tokens the model takes, where that is not known of it.
    """

    temperature: float | None = None
    max_output_tokens: int | None = None
    reasoning_effort: str | None = None
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    context_window: int | None = None


@dataclass(frozen=True, slots=True)
class Carried:
    """What an endpoint gave beside a reply's ``text`` and wants back with it, such as encrypted reasoning.

    Opaque to all but the model it came from: ``origin`` says which, as (endpoint, model). Kept in memory
    only, for requests of the same conversation.
    """

    origin: tuple[str, str]
    text: str
    items: tuple[Mapping[str, Any], ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Request:
    """One question to a model.

    ``schema`` is a JSON schema the reply's text must satisfy, or None. ``cache_key`` is the same for all
    requests that share a prefix (sent as ``prompt_cache_key`` where an endpoint takes it). ``timeout``
    bounds the whole request, retries included, in seconds. ``carried`` is what earlier replies of this
    conversation brought along, in order; a model uses its own and ignores the rest. ``memo`` is the same for
    all requests of a conversation: a model may keep there what it would have to work out again.
    """

    messages: Sequence[Message]
    options: ModelOptions = ModelOptions()
    schema: Mapping[str, Any] | None = None
    cache_key: str | None = None
    timeout: float | None = None
    carried: Sequence[Carried] = ()
    memo: dict[str, Any] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model wrote.

    ``model`` is the name the endpoint reports, which may be more exact than the one asked for.
    ``finish_reason`` is the endpoint's word (``stop``, ``length``, ``content_filter``, ...). ``attempts``
    counts the requests made for it, failed ones included. ``reasoning`` is thought text that the endpoint
    gives apart from the reply, where it does. ``carried`` belongs into the conversation's next requests.
    """

    text: str
    usage: Usage
    model: str
    finish_reason: str = "stop"
    attempts: int = 1
    reasoning: str = ""
    carried: Carried | None = None


@runtime_checkable
class Model(Protocol):
    """A language model as the engine sees it.

    Used where a model has them: ``open()``, awaited before the first stream; ``price_known``,
    ``cost(usage)`` in USD and ``window`` in tokens, of which each may be None or tell so.
    """

    @property
    def name(self) -> str:
        """The name asked for, and the key under which usage and prices are kept."""
        ...

    async def reply(self, request: Request) -> Reply:
        """Answer ``request``. The engine calls this for sub-calls, many at once, on its own loop.

        Raises:
            ModelError: no usable reply, retries included.
        """
        ...

    def stream(self, request: Request) -> AsyncIterator[str | Reply]:
        """Answer ``request`` as it is written: pieces of text, then exactly one `Reply`, last.

        The engine calls this for root turns. When a stream breaks and is tried again, the pieces start
        afresh: only the `Reply` counts.

        Raises:
            ModelError: no usable reply, retries included.
        """
        ...
