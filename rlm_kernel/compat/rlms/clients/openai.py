"""The client of `rlms` for OpenAI-compatible endpoints, over this package's own connections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .... import background
from ....messages import Message
from ....models.base import Request
from ....models.openai import OpenAIModel
from ....usage import Usage
from ..core.types import ModelUsageSummary, UsageSummary
from .base_lm import DEFAULT_TIMEOUT, BaseLM
from .endpoints import model_of

__all__ = ["ModelClient", "OpenAIClient", "messages_of"]


class ModelClient(BaseLM):
    """A client that asks one model of this package."""

    def __init__(self, model: OpenAIModel, *, sampling_args: dict[str, Any] | None = None) -> None:
        super().__init__(model.name, sampling_args=sampling_args)
        self.model = model
        self._calls = 0
        self._usage = Usage()
        self._last = Usage()

    def completion(self, prompt: Any) -> str:
        """Return the reply to a text or a list of messages, and wait for it.

        Raises:
            ModelError: there is none, after every retry.
        """
        return background.run(self.acompletion(prompt))

    async def acompletion(self, prompt: Any) -> str:
        """Return the reply to a text or a list of messages; see `completion`."""
        reply = await self.model.reply(Request(messages_of(prompt)))
        self._calls += 1
        self._last = reply.usage
        self._usage += reply.usage
        return reply.text

    def get_usage_summary(self) -> UsageSummary:
        """Return what all completions took."""
        found = {self.model_name: _summary(self._calls, self._usage)} if self._calls else {}
        return UsageSummary(found)

    def get_last_usage(self) -> ModelUsageSummary:
        """Return what the last completion took."""
        return _summary(min(self._calls, 1), self._last)


class OpenAIClient(ModelClient):
    """A client by the constructor arguments of `rlms`."""

    def __init__(
        self,
        api_key: str | None = None,
        model_name: str | None = None,
        base_url: str | None = None,
        sampling_args: dict[str, Any] | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        **kwargs: Any,
    ) -> None:
        own = {"api_key": api_key, "model_name": model_name, "base_url": base_url, "timeout": timeout}
        model = model_of("openai", {**own, "sampling_args": sampling_args, **kwargs})
        super().__init__(model, sampling_args=sampling_args)
        self.base_url = base_url


def messages_of(prompt: Any) -> Sequence[Message]:
    """Return a prompt as messages.

    Raises:
        ValueError: it is neither a text nor a list of messages.
    """
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    if isinstance(prompt, dict):
        prompt = [prompt]
    if (
        isinstance(prompt, list)
        and prompt
        and all(isinstance(each, dict) and {"role", "content"} <= each.keys() for each in prompt)
    ):
        return prompt
    raise ValueError(f"a prompt is a text or a list of messages, not {type(prompt).__name__}")


def _summary(calls: int, usage: Usage) -> ModelUsageSummary:
    cost = None if usage.cost_usd is None else float(usage.cost_usd)
    return ModelUsageSummary(calls, usage.input_tokens, usage.output_tokens, cost, usage.cached_tokens)
