"""``LMHandler`` of `rlms`: which client answers the calls of a REPL.

There it is a TCP server that any process of the machine can ask; here an address is only a name by which the
REPL classes find it in this process, and nothing listens.
"""

from __future__ import annotations

from itertools import count
from types import TracebackType

from ..clients.base_lm import BaseLM
from .types import ModelUsageSummary, UsageSummary

__all__ = ["LMHandler", "handler_at"]

_numbers = count(1)
_open: dict[tuple[str, int], LMHandler] = {}


class LMHandler:
    """Answers with ``client``, with ``other_backend_client`` at depth 1, or with the one of a name."""

    def __init__(
        self,
        client: BaseLM,
        host: str = "",
        port: int = 0,
        other_backend_client: BaseLM | None = None,
        batch_max_concurrent: int = 16,
    ) -> None:
        self.default_client = client
        self.other_backend_client = other_backend_client
        self.batch_max_concurrent = batch_max_concurrent
        self.clients: dict[str, BaseLM] = {}
        self.host, self.port = host, port or next(_numbers)
        self.register_client(client.model_name, client)

    @property
    def address(self) -> tuple[str, int]:
        """The name by which a REPL finds this handler."""
        return self.host, self.port

    def register_client(self, model_name: str, client: BaseLM) -> None:
        """Answer with ``client`` where this name is asked for."""
        self.clients[model_name] = client

    def get_client(self, model: str | None = None, depth: int = 0) -> BaseLM:
        """Return the client that answers: by name if that is known, else by depth."""
        if model in self.clients:
            return self.clients[model]
        if depth == 1 and self.other_backend_client is not None:
            return self.other_backend_client
        return self.default_client

    def completion(self, prompt: str, model: str | None = None) -> str:
        """Return the reply to ``prompt``."""
        return self.get_client(model).completion(prompt)

    def get_usage_summary(self) -> UsageSummary:
        """Return what all clients took."""
        found: dict[str, ModelUsageSummary] = {}
        clients = {id(each): each for each in (*self.clients.values(), self.other_backend_client) if each}
        for client in clients.values():
            found.update(client.get_usage_summary().model_usage_summaries)
        return UsageSummary(found)

    def start(self) -> tuple[str, int]:
        """Let the handler be found; return its address."""
        _open[self.address] = self
        return self.address

    def stop(self) -> None:
        """Let it not be found any more."""
        _open.pop(self.address, None)

    def __enter__(self) -> LMHandler:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def handler_at(address: tuple[str, int]) -> LMHandler | None:
    """Return the handler of this address, None if there is none."""
    return _open.get(tuple(address))  # type: ignore[arg-type]
