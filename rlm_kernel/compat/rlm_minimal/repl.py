"""``REPLEnv`` of rlm-minimal: a REPL to run code in, without a root model; here a kernel process of its own.

As there, ``llm_query`` asks ``sub_rlm``: a plain model where ``current_depth + 1`` has reached ``max_depth``,
else a `RLM_REPL` one level deeper. A call that fails raises ``CallFailed`` in the code.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ... import background
from ...context import Context
from ...errors import CallError
from ...models.base import Request
from ...prompts import sub_prompt
from ...repl.base import Call, LLMQuery, RLMQuery
from ...usage import Usage
from ..cells import CELL_SECONDS, Cells, in_thread
from ..rlms.clients.openai import messages_of
from ..rlms.core.trajectory import streams
from .endpoints import model_by_name, recursive_urls
from .endpoints import recursive_models as _recursive
from .rlm import RLM
from .rlm_repl import RLM_REPL, depth_of

if TYPE_CHECKING:
    from ...repl.session import JupyterSession

__all__ = ["REPLEnv", "REPLResult", "Sub_RLM"]


class Sub_RLM(RLM):  # noqa: N801  the published name
    """One plain model: no REPL, and nothing below it."""

    def __init__(self, model: str = "gpt-5", base_url: str | None = None, api_key: str | None = None) -> None:
        self.model = model
        self._model = model_by_name(model, base_url, api_key)
        self._usage = Usage()
        self._calls = 0

    def completion(self, context: Any, query: str | None = None) -> str:
        """Return the reply to a text or a list of messages, and to ``query`` about it.

        Raises:
            ModelError: there is none. The original returns a text that says so.
        """
        prompt = context if query is None else sub_prompt(query, str(context))
        return background.run(self._reply(prompt))

    async def _reply(self, prompt: Any) -> str:
        reply = await self._model.reply(Request(messages_of(prompt)))
        self._usage += reply.usage
        self._calls += 1
        return reply.text

    def cost_summary(self) -> dict[str, Any]:
        """Return what all completions took."""
        usage = self._usage
        return {
            "total_cost": None if usage.cost_usd is None else float(usage.cost_usd),
            "total_input_tokens": usage.input_tokens,
            "total_output_tokens": usage.output_tokens,
            "total_cached_tokens": usage.cached_tokens,
            "total_calls": self._calls,
        }

    def reset(self) -> None:
        """Count from nothing again."""
        self._usage, self._calls = Usage(), 0


@dataclass
class REPLResult:
    """How a cell ended. ``locals`` are the variables that cells made, those too large for JSON as text."""

    stdout: str
    stderr: str
    locals: dict[str, Any]
    execution_time: float | None = None


class REPLEnv:
    """Runs code, cell by cell; see the module. ``depth``, ``recursive_...`` are older names.

    ``session`` makes the session that cells run in, a local kernel if it is None.

    Raises:
        ConfigError: arguments that contradict each other.
    """

    def __init__(  # noqa: PLR0917  the original's
        self,
        recursive_models: Sequence[str] | None = None,
        recursive_base_urls: Sequence[str] | None = None,
        api_key: str | None = None,
        context_json: Any = None,
        context_str: str | None = None,
        setup_code: str | None = None,
        max_depth: int | None = None,
        current_depth: int = 0,
        *,
        recursive_model: str | None = None,
        recursive_base_url: str | None = None,
        recursive_api_key: str | None = None,
        depth: int | None = None,
        cell_timeout: float | None = CELL_SECONDS,
        session: Callable[[], JupyterSession] | None = None,
    ) -> None:
        self.max_depth = depth_of(max_depth, depth)
        self.current_depth = current_depth
        models = _recursive(recursive_models, recursive_model)
        urls = recursive_urls(recursive_base_urls, recursive_base_url, None)
        model, url = (each[min(current_depth, len(each) - 1)] for each in (models, urls))
        key = api_key or recursive_api_key
        self.sub_rlm: RLM
        if current_depth + 1 < self.max_depth:
            self.sub_rlm = RLM_REPL(
                api_key=key,
                model=model,
                base_url=url,
                recursive_models=models,
                recursive_base_urls=[each for each in urls if each] or None,
                max_depth=self.max_depth,
                current_depth=current_depth + 1,
                repl_factory=session,
            )
        else:
            self.sub_rlm = Sub_RLM(model or "gpt-5-mini", url, key)
        self.locals: dict[str, Any] = {}
        self._caller = contextvars.copy_context()
        self._cells = Cells(self._answer, cell_timeout=cell_timeout, session=session)
        self.load_context(context_json, context_str)
        if setup_code:
            result = self.code_execution(setup_code)
            if result.stderr:
                warnings.warn(f"the setup code failed: {result.stderr[-500:]}", RuntimeWarning, stacklevel=2)

    def load_context(self, context_json: Any = None, context_str: str | None = None) -> None:
        """Make what is given the variable ``context``; text wins, as in the original."""
        for value in (context_json, context_str):
            if value is not None:
                self._cells.start([Context.of("context", value)])

    def code_execution(self, code: str) -> REPLResult:
        """Execute one cell and return how it ended; what goes wrong in it stands in ``stderr``."""
        self._caller = contextvars.copy_context()
        began = time.perf_counter()
        result = self._cells.run(code)
        seconds = time.perf_counter() - began
        stdout, stderr = streams(result.outputs, result.lost)
        if result.status == "timed_out" and not result.lost:
            stderr += f"The cell was interrupted after {self._cells.cell_timeout:g} seconds.\n"
        self.locals = self._cells.values(result.variables)
        return REPLResult(stdout, stderr, dict(self.locals), seconds)

    def cleanup(self) -> None:
        """End the kernel. Safe to call twice."""
        self._cells.close()
        if isinstance(self.sub_rlm, RLM_REPL):
            self.sub_rlm.close()

    async def _answer(self, call: Call) -> Sequence[Any]:
        asked: list[Callable[[], str]]
        if isinstance(call, LLMQuery):
            asked = [lambda prompt=prompt: self._asked(prompt, None) for prompt in call.prompts]  # type: ignore[misc]
        elif isinstance(call, RLMQuery):
            asked = [
                lambda query=query, context=context: self._asked(query, context)  # type: ignore[misc]
                for query, context in call.items
            ]
        else:
            raise CallError("there are neither tools nor budgets here", kind="bad_request")
        return await asyncio.gather(*map(self._or_error, asked))

    def _asked(self, prompt: Any, context: Context | None) -> str:
        if not isinstance(prompt, str):
            prompt = [{"role": "user", "content": prompt}]
        if context is None:
            return self.sub_rlm.completion(prompt)
        return self.sub_rlm.completion(context.value, prompt)

    async def _or_error(self, ask: Callable[[], str]) -> Any:
        try:
            return await in_thread(self._caller, ask)
        except Exception as error:  # noqa: BLE001  an edge: one call that fails is not all of them
            return CallError(f"{type(error).__name__}: {error}".rstrip(": "), kind="model")
