"""The clients of rlm-minimal, over this package's own connections."""

from __future__ import annotations

from typing import Any

from .... import background
from ....models.base import Request
from ...rlms.clients.endpoints import options_of
from ...rlms.clients.openai import messages_of
from ..endpoints import model_by_name, root_name

__all__ = ["LLMClient", "OpenAIClient"]


class LLMClient:
    """Asks one model; key and endpoint come from the environment where they are not given."""

    def __init__(
        self, api_key: str | None = None, model: str | None = None, base_url: str | None = None
    ) -> None:
        self.model = root_name(model)
        self._model = model_by_name(self.model, base_url, api_key)
        self.base_url = self._model.base_url

    def completion(self, messages: Any, max_tokens: int | None = None, **kwargs: Any) -> str:
        """Return the reply to a text or a list of messages; ``kwargs`` go into the request.

        Raises:
            ModelError: there is none, after every retry.
        """
        timeout = kwargs.pop("timeout", None)
        options = options_of({"max_tokens": max_tokens, **kwargs})
        request = Request(messages_of(messages), options, timeout=timeout)
        return background.run(self._model.reply(request)).text


class OpenAIClient(LLMClient):
    """The older name."""

    def __init__(self, api_key: str | None = None, model: str | None = None) -> None:
        super().__init__(api_key, model)
