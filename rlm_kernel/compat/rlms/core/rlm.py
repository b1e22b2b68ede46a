"""``RLM`` of `rlms` over this package's engine: same arguments, methods, results and exceptions.

Where the original leaves something out, this does not: usage is the whole tree's, children included; failures
are typed; out of turns, the result's ``error`` says that its ``response`` is no answer.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from .... import background
from ....answer import Answer
from ....events import Event
from ....ledger import Budget
from ....models.base import Request
from ....models.openai import OpenAIModel
from ....repl.base import SessionFactory
from ....rlm import RLM as KernelRLM  # noqa: N811  this module's own RLM is the other one
from ....session import Session
from ..clients.endpoints import model_of
from ..clients.openai import messages_of
from ..environments import ELSEWHERE
from ..environments.ipython_repl import check_kernel_mode
from ..environments.local_repl import only_local
from ..environments.setup import with_setup
from ..environments.tools import given_tools
from ..logger import RLMLogger, VerbosePrinter
from ..utils.exceptions import (
    BudgetExceededError,
    CancellationError,
    CompletionFailedError,
    ErrorThresholdExceededError,
    TimeoutExceededError,
    TokenLimitExceededError,
    UnsupportedArgumentError,
)
from ..utils.prompts import filled
from .trajectory import Callbacks, Trajectory
from .types import ModelUsageSummary, RLMChatCompletion, RLMMetadata, UsageSummary

__all__ = ["RLM"]

_PROMPT_IS_CONTEXT = (
    "The variable `context` holds a prompt: instructions, and perhaps the material they are about. Look at "
    "it, do what it asks, and give the result as your answer."
)
_ENVIRONMENT = frozenset(("setup_code", "cell_timeout", "kernel_mode", "startup_timeout", "subcall_timeout"))


class RLM:
    """A Recursive Language Model by the constructor arguments of `rlms` 0.1.3.

    What each of them means here stands in ``docs/switching.md``. Callbacks are called in the thread of the
    background. Use it as a context manager, or call `close`.

    Raises:
        UnsupportedArgumentError: an argument that would change results, were it ignored.
        ConfigError: a setting that can't be held, such as ``max_budget`` for a model of unknown price.
    """

    def __init__(  # noqa: PLR0917  the original's
        self,
        backend: str = "openai",
        backend_kwargs: dict[str, Any] | None = None,
        environment: str = "local",
        environment_kwargs: dict[str, Any] | None = None,
        depth: int = 0,
        max_depth: int = 1,
        max_iterations: int = 30,
        max_budget: float | None = None,
        max_timeout: float | None = None,
        max_tokens: int | None = None,
        max_errors: int | None = None,
        custom_system_prompt: str | None = None,
        other_backends: list[str] | None = None,
        other_backend_kwargs: list[dict[str, Any]] | None = None,
        logger: RLMLogger | None = None,
        verbose: bool = False,  # noqa: FBT001, FBT002  the original's
        persistent: bool = False,  # noqa: FBT001, FBT002
        custom_tools: dict[str, Any] | None = None,
        custom_sub_tools: dict[str, Any] | None = None,
        compaction: bool = False,  # noqa: FBT001, FBT002
        compaction_threshold_pct: float = 0.85,
        max_concurrent_subcalls: int = 4,
        on_subcall_start: Callable[[int, str, str], Any] | None = None,
        on_subcall_complete: Callable[[int, str, float, str | None], Any] | None = None,
        on_iteration_start: Callable[[int, int], Any] | None = None,
        on_iteration_complete: Callable[[int, int, float], Any] | None = None,
        sampling_args: dict[str, Any] | None = None,
        sub_sampling_args: dict[str, Any] | None = None,
        orchestrator: bool = True,  # noqa: FBT001, FBT002
        user_prologue: str | None = None,
    ) -> None:
        self.backend = backend
        self.backend_kwargs = dict(backend_kwargs or {})
        self.environment_type = environment
        self.environment_kwargs = dict(environment_kwargs or {})
        self.depth, self.max_depth, self.max_iterations = depth, max_depth, max_iterations
        self.max_budget, self.max_timeout = max_budget, max_timeout
        self.max_tokens, self.max_errors = max_tokens, max_errors
        self.other_backends, self.other_backend_kwargs = other_backends, other_backend_kwargs
        self.custom_tools, self.custom_sub_tools = custom_tools, custom_sub_tools
        self.logger, self.verbose, self.persistent = logger, verbose, persistent
        self.user_prologue = user_prologue
        self._check(orchestrator=orchestrator, max_concurrent_subcalls=max_concurrent_subcalls)
        self._tools = given_tools(custom_tools, custom_sub_tools)
        self._models = self._open_models(sampling_args, sub_sampling_args)
        self._callbacks = Callbacks(
            on_subcall_start, on_subcall_complete, on_iteration_start, on_iteration_complete
        )
        tokens = max_tokens
        priced = all(model.price_known for model in self._models)
        if max_budget is not None and tokens is None and not priced and self._reports_cost():
            # The endpoint tells what each request costs, so that no price need be known beforehand.
            tokens = 10**15
        self._rlm = KernelRLM(
            model=list(self._models),
            repl=self._repl(),
            max_depth=max(1, max_depth - depth),
            max_iterations=max_iterations,
            cell_timeout=self.environment_kwargs.get("cell_timeout", "default"),
            budget=Budget(usd=max_budget, tokens=tokens, seconds=max_timeout, errors=max_errors),
            system_prompt=filled(custom_system_prompt) if custom_system_prompt else None,
            tools=self._tools.functions,
            compact_at=compaction_threshold_pct if compaction else None,
        )
        self._session: Session | None = None
        if logger is not None:
            logger.hide(self._keys())
            logger.log_metadata(self._metadata())

    # Arguments --------------------------------------------------------------------------------------

    def _check(self, *, orchestrator: bool, max_concurrent_subcalls: int) -> None:
        only_local(self.environment_type, ELSEWHERE)
        unknown = sorted(set(self.environment_kwargs) - _ENVIRONMENT)
        if unknown:
            raise UnsupportedArgumentError(
                f"environment_kwargs can't hold {', '.join(unknown)} here",
                hint=f"there is {', '.join(sorted(_ENVIRONMENT))}",
            )
        check_kernel_mode(self.environment_kwargs.get("kernel_mode", "subprocess"), stacklevel=4)
        if self.other_backends is not None and len(self.other_backends) != 1:
            raise UnsupportedArgumentError(
                f"other_backends holds {len(self.other_backends)} backends",
                hint="give one, which answers all sub-calls; rlm_kernel.RLM takes a list by depth",
            )
        notes = [
            f"{name} has no effect here: cell_timeout holds for all"
            for name in ("startup_timeout", "subcall_timeout")
            if self.environment_kwargs.get(name) is not None
        ]
        if not orchestrator:
            notes.append("orchestrator=False has no effect here: there is one system prompt")
        if max_concurrent_subcalls != 4:
            notes.append(
                "max_concurrent_subcalls has no effect here: calls of a batch go out together, as fast as "
                "the endpoint takes them"
            )
        if self.other_backends and self.max_depth - self.depth > 1:
            notes.append(
                "children with a REPL run with the model of other_backends here, as all sub-calls do; in the "
                "original with the root's"
            )
        for note in notes:
            warnings.warn(note, UserWarning, stacklevel=3)

    def _open_models(
        self, sampling: Mapping[str, Any] | None, sub_sampling: Mapping[str, Any] | None
    ) -> tuple[OpenAIModel, ...]:
        root = _with_sampling(self.backend_kwargs, sampling)
        models = [model_of(self.backend, root)]
        if self.other_backends:
            sub = (self.other_backend_kwargs or [{}])[0]
            models.append(model_of(self.other_backends[0], _with_sampling(sub, sub_sampling)))
        elif sub_sampling is not None:
            models.append(model_of(self.backend, _with_sampling(root, sub_sampling)))
        return tuple(models)

    def _repl(self) -> str | SessionFactory:
        code = self.environment_kwargs.get("setup_code")
        return with_setup(code) if code else "local"

    def _reports_cost(self) -> bool:
        given = [(self.backend, self.backend_kwargs)]
        if self.other_backends:
            given.append((self.other_backends[0], (self.other_backend_kwargs or [{}])[0]))
        return all(
            backend == "openrouter" or "openrouter.ai" in str(kwargs.get("base_url"))
            for backend, kwargs in given
        )

    def _keys(self) -> list[str]:
        given = [self.backend_kwargs, *(self.other_backend_kwargs or [])]
        named = [str(value) for each in given for name, value in each.items() if _is_key(name) and value]
        return named + [value for name, value in os.environ.items() if name.endswith("_API_KEY")]

    def _metadata(self) -> RLMMetadata:
        shown = {name: value for name, value in self.backend_kwargs.items() if _may_be_shown(name)}
        return RLMMetadata(
            root_model=self._models[0].name,
            max_depth=self.max_depth,
            max_iterations=self.max_iterations,
            backend=self.backend,
            backend_kwargs=shown,
            environment_type=self.environment_type,
            environment_kwargs=self.environment_kwargs,
            other_backends=self.other_backends,
        )

    # Completions ------------------------------------------------------------------------------------

    def completion(self, prompt: Any, root_prompt: str | None = None) -> RLMChatCompletion:
        """Answer ``root_prompt`` over ``prompt``, which becomes ``context``; without one, do what it asks.

        Raises:
            BudgetExceededError: and the other exceptions of `rlms`, where a limit was reached.
            CompletionFailedError: an endpoint or a kernel gave up.
            CancellationError: Ctrl-C.
            InputError: a prompt that can't be used; nothing was spent.
        """
        heard = self._trajectory()
        try:
            return background.run(self._complete(prompt, root_prompt, heard))
        except KeyboardInterrupt:
            raise CancellationError(partial_answer=heard.last_response or None) from None

    async def acompletion(self, prompt: Any, root_prompt: str | None = None) -> RLMChatCompletion:
        """Answer ``root_prompt`` over ``prompt``; see `completion`."""
        return await self._complete(prompt, root_prompt, self._trajectory())

    def _trajectory(self) -> Trajectory:
        return Trajectory(
            self.logger.log if self.logger else None, self._callbacks, nested=self.logger is not None
        )

    async def _complete(self, prompt: Any, root_prompt: str | None, heard: Trajectory) -> RLMChatCompletion:
        if self.depth >= self.max_depth:
            return await self._plain(prompt, root_prompt)
        if self.logger is not None:
            self.logger.clear_iterations()
        query = root_prompt or _PROMPT_IS_CONTEXT
        query = "\n\n".join(filter(None, [query, self.user_prologue, self._notes()]))
        printer = VerbosePrinter(enabled=self.verbose)
        began = time.monotonic()
        try:
            answer = await self._ask(query, prompt, [heard, printer])
        finally:
            printer.close()
        return self._completed(prompt, answer, heard, time.monotonic() - began)

    async def _ask(self, query: str, prompt: Any, readers: list[Callable[[Event], Any]]) -> Answer:
        if not self.persistent:
            return await self._rlm.acompletion(
                query, prompt, contexts=self._tools.values or None, readers=readers
            )
        if self._session is None:
            self._session = self._rlm.session(contexts=self._tools.values or None)
        return await self._session.aask(query, prompt, readers=readers)

    def _notes(self) -> str:
        return f"About variables beside it:\n{self._tools.notes}" if self._tools.notes else ""

    async def _plain(self, prompt: Any, root_prompt: str | None) -> RLMChatCompletion:
        """Ask once, without a REPL: ``depth`` has reached ``max_depth``."""
        model = self._models[0]
        messages = [*messages_of(prompt)]
        if root_prompt:
            messages.append({"role": "user", "content": root_prompt})
        began = time.monotonic()
        reply = await model.reply(Request(messages, timeout=self.max_timeout))
        used = reply.usage
        summary = ModelUsageSummary(
            1,
            used.input_tokens,
            used.output_tokens,
            None if used.cost_usd is None else float(used.cost_usd),
            used.cached_tokens,
        )
        usage = UsageSummary({model.name: summary})
        return RLMChatCompletion(model.name, prompt, reply.text, usage, time.monotonic() - began)

    def _completed(self, prompt: Any, answer: Answer, heard: Trajectory, seconds: float) -> RLMChatCompletion:
        if answer.status not in ("answered", "exhausted"):
            raise self._error(answer, heard)
        return RLMChatCompletion(
            root_model=self._models[0].name,
            prompt=prompt,
            response=answer.text,
            usage_summary=heard.usage,
            execution_time=seconds,
            metadata=self.logger.get_trajectory() if self.logger else None,
            error=None if answer.status == "answered" else answer.reason,
        )

    def _error(self, answer: Answer, heard: Trajectory) -> Exception:
        """Return the exception of `rlms` that says how a run ended."""
        partial, reason = answer.text or None, answer.reason
        if answer.status == "cancelled":
            return CancellationError(partial, reason)
        if answer.status == "timed_out":
            return TimeoutExceededError(answer.seconds, self.max_timeout or 0.0, partial, reason)
        if answer.status == "failed":
            return CompletionFailedError(reason, partial)
        usage = answer.usage
        if self.max_tokens is not None and usage.total_tokens >= self.max_tokens:
            return TokenLimitExceededError(usage.total_tokens, self.max_tokens, partial, reason)
        if self.max_budget is not None and (
            usage.cost_usd is None or float(usage.cost_usd) >= self.max_budget
        ):
            return BudgetExceededError(float(usage.cost_usd or 0), self.max_budget, reason, partial)
        errors = self.max_errors or 0
        return ErrorThresholdExceededError(errors, errors, heard.last_error, partial, reason)

    # The end ----------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Close what `acompletion` has opened on this event loop."""
        session, self._session = self._session, None
        if session is not None:
            await session.aclose()
        await self._rlm.aclose()
        for model in self._models:
            await model.aclose()

    def close(self) -> None:
        """Close what `completion` has opened; see `aclose`."""
        background.run(self.aclose())

    def __enter__(self) -> RLM:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _with_sampling(kwargs: Mapping[str, Any], sampling: Mapping[str, Any] | None) -> dict[str, Any]:
    return {**kwargs, "sampling_args": {**(kwargs.get("sampling_args") or {}), **(sampling or {})}}


def _is_key(name: str) -> bool:
    return "api" in name.lower() and "key" in name.lower()


def _may_be_shown(name: str) -> bool:
    return not _is_key(name) and name not in ("default_headers", "prices")
