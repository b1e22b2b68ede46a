"""``RLM_REPL`` of rlm-minimal: a root model with a REPL, here a supervised kernel.

Model propagation: the root is ``model``; what it asks is answered by ``recursive_models[0]``, what that asks
by ``recursive_models[1]``, and so on, the last for all below. Depth: a call at depth d has a REPL of its own
if d is below ``max_depth``, else it is one plain model call.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from ... import background, config
from ...answer import Answer
from ...errors import ConfigError
from ...messages import Message
from ...repl.base import SessionFactory
from ...rlm import RLM as KernelRLM  # noqa: N811  the base class here is called RLM too
from ..rlms.logger.verbose import VerbosePrinter
from .endpoints import RunFailedError, model_by_name, recursive_models, recursive_urls, root_name
from .rlm import RLM

__all__ = ["DEFAULT_QUERY", "RLM_REPL", "depth_of"]

DEFAULT_QUERY = "Read the context; answer what is asked in it, and follow the instructions that it gives."


class RLM_REPL(RLM):  # noqa: N801  the published name
    """A Recursive Language Model by the arguments of rlm-minimal.

    ``depth`` is the older name of ``max_depth``, ``recursive_model`` one model in place of a list by depth.
    ``repl_factory`` is a `RemoteREPLFactory`, which is what ``WASM_SERVICE_URL`` stands for, or any factory
    of sessions, as ``repl=`` of `rlm_kernel.RLM`. After a completion ``answer`` is its `rlm_kernel.Answer`,
    and ``messages`` the root conversation.

    Raises:
        ConfigError: arguments that contradict each other.
    """

    def __init__(  # noqa: PLR0917  the original's
        self,
        api_key: str | None = None,
        model: str | None = None,
        recursive_model: str | None = None,
        max_iterations: int = 20,
        depth: int | None = None,
        enable_logging: bool = False,  # noqa: FBT001, FBT002
        *,
        base_url: str | None = None,
        recursive_models: Sequence[str] | None = None,
        recursive_base_url: str | None = None,
        recursive_base_urls: Sequence[str] | None = None,
        max_depth: int | None = None,
        current_depth: int = 0,
        repl_factory: SessionFactory | None = None,
    ) -> None:
        if repl_factory is None and config.resolve()["wasm_service_url"].value:
            from .remote import RemoteREPLFactory  # noqa: PLC0415  its module imports this one

            repl_factory = RemoteREPLFactory()
        if repl_factory is not None and not callable(repl_factory):
            raise ConfigError(
                "repl_factory makes environments of rlm-minimal, which have no kernel",
                hint="give a RemoteREPLFactory, or a factory of sessions, as repl= of rlm_kernel.RLM",
            )
        self.model = root_name(model)
        self.base_url = base_url
        self.recursive_models = _recursive(recursive_models, recursive_model)
        self.recursive_base_urls = recursive_urls(recursive_base_urls, recursive_base_url, base_url)
        self.max_depth = depth_of(max_depth, depth)
        self.current_depth = current_depth
        self.enable_logging = enable_logging
        self.query: str | None = None
        self.answer: Answer | None = None
        self._answers: list[Answer] = []
        names = [self.model, *_from(self.recursive_models, current_depth)]
        urls = [self.base_url, *_from(self.recursive_base_urls, current_depth)]
        urls += urls[-1:] * (len(names) - len(urls))
        self._models = [model_by_name(name, url, api_key) for name, url in zip(names, urls, strict=False)]
        self._rlm = KernelRLM(
            model=list(self._models),
            repl=repl_factory,
            max_depth=max(1, self.max_depth - current_depth),
            max_iterations=max_iterations,
        )

    @property
    def messages(self) -> Sequence[Message]:
        """The root conversation of the last completion."""
        return () if self.answer is None else self.answer.messages

    def completion(self, context: Any, query: str | None = None) -> str:
        """Answer ``query`` over ``context``, and wait for it.

        Out of turns, it returns the best there is, with a warning.

        Raises:
            RunFailedError: there is no answer; the message says why.
            InputError: a context that can't be used.
        """
        return background.run(self.acompletion(context, query))

    async def acompletion(self, context: Any, query: str | None = None) -> str:
        """Answer ``query`` over ``context``; see `completion`."""
        self.query = query or DEFAULT_QUERY
        printer = VerbosePrinter(enabled=self.enable_logging)
        try:
            answer = await self._rlm.acompletion(self.query, context, readers=[printer])
        finally:
            printer.close()
        self.answer = answer
        self._answers.append(answer)
        if answer.status == "exhausted":
            warnings.warn(answer.reason, RuntimeWarning, stacklevel=2)
        elif not answer:
            raise RunFailedError(answer.reason)
        return answer.text

    def cost_summary(self) -> dict[str, Any]:
        """Return what all completions took, sub-calls and children included."""
        usages = [answer.usage for answer in self._answers]
        costs = [usage.cost_usd for usage in usages]
        known = [cost for cost in costs if cost is not None]
        return {
            "total_cost": float(sum(known)) if len(known) == len(costs) else None,
            "total_input_tokens": sum(usage.input_tokens for usage in usages),
            "total_output_tokens": sum(usage.output_tokens for usage in usages),
            "total_cached_tokens": sum(usage.cached_tokens for usage in usages),
            "total_calls": sum(answer.total_calls for answer in self._answers),
        }

    def reset(self) -> None:
        """Forget what was asked so far; each completion begins afresh in any case."""
        self.query = self.answer = None
        self._answers.clear()

    def close(self) -> None:
        """Close connections and spare kernels."""
        background.run(self._aclose())

    async def _aclose(self) -> None:
        await self._rlm.aclose()
        for model in self._models:
            await model.aclose()


_recursive = recursive_models


def depth_of(max_depth: int | None, depth: int | None) -> int:
    """Return the depth meant by either argument, 1 by default.

    Raises:
        ConfigError: they contradict each other.
    """
    if None not in (max_depth, depth) and max_depth != depth:
        raise ConfigError(
            f"max_depth is {max_depth} and depth {depth}", hint="they mean the same: give one of them"
        )
    given = max_depth if max_depth is not None else depth
    return max(1, 1 if given is None else given)


def _from(by_depth: Sequence[Any], depth: int) -> Sequence[Any]:
    """Return what holds from ``depth`` on; the last holds for all below."""
    return by_depth[min(depth, len(by_depth) - 1) :]
