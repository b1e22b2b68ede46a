"""`RLM`: the face of the package. It checks what it is given and wires the parts together."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from . import background, config
from .answer import Answer
from .context import collect
from .engine import Engine, EngineSettings
from .errors import ConfigError, InputError
from .events import Emitter, Event
from .ledger import Budget, Ledger
from .models.base import Model, ModelOptions
from .models.plan import ModelPlan
from .repl.base import SessionFactory

if TYPE_CHECKING:
    from .models.prices import Price
    from .repl.pool import Pool
    from .repl.session import JupyterSession

__all__ = ["RLM"]

Reader = Callable[[Event], None]
Models = str | Model | Sequence[str | Model]


class RLM:
    """A Recursive Language Model whose REPL is a Jupyter kernel.

    Args:
        model: The root model: a name, a `Model`, or a list by depth.
        sub_model: The model of sub-calls and children: a name, a `Model`, or a list by further depths.
            Without one, the last of ``model`` does their work.
        base_url: An OpenAI-compatible endpoint for models given by name.
        api_key: Its key. It stays in this process.
        repl: Where model-written code runs: ``local``, or a factory of sessions.
        max_depth: The first depth at which ``rlm_query`` is a plain model call; 1 means no child has a REPL.
        max_iterations: Turns of a root model at most.
        cell_timeout: Seconds a cell may take; None for no limit.
        budget: Caps for the whole tree of a run.
        prices: Prices by model name (``*`` and ``?`` match any text), before those of the price list.
        options: How models are asked: one `ModelOptions`, or a list by depth.
        vision: Whether the root model is shown figures as images.
        system_prompt: Replaces the package's own system prompt.
        readers: Functions that are given every event of every run.
        spare_kernels: How many local kernels are kept ready for further runs; 0 for none.

    What is not given comes from the environment, see `rlm_kernel.config`. Use it as a context manager, or
    call `close`: connections are kept open between runs.

    Raises:
        ConfigError: a setting is missing, malformed or contradicts another one.
    """

    def __init__(
        self,
        model: Models | None = None,
        sub_model: Models | None = None,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        repl: str | SessionFactory | None = None,
        max_depth: int | None = None,
        max_iterations: int | None = None,
        cell_timeout: float | Literal["default"] | None = "default",
        budget: Budget | None = None,
        prices: Mapping[str, Price] | None = None,
        options: ModelOptions | Sequence[ModelOptions] = (),
        vision: bool = False,
        system_prompt: str | None = None,
        readers: Sequence[Reader] = (),
        spare_kernels: int = 2,
    ) -> None:
        settings = config.resolve(
            {
                "model": model if isinstance(model, str) else None,
                "sub_model": sub_model if isinstance(sub_model, str) else None,
                "base_url": base_url,
                "api_key": api_key,
                "repl": repl if isinstance(repl, str) else None,
                "max_depth": max_depth,
                "max_iterations": max_iterations,
                "cell_timeout": _cell_timeout(cell_timeout),
            }
        )
        value = {name: setting.value for name, setting in settings.items()}
        self._budget = budget or _budget(value)
        self._readers = tuple(readers)
        self._owned: list[Any] = []
        self._secrets = [value["api_key"]] if value["api_key"] else []
        self._plan = self._make_plan(model, sub_model, value, prices or {}, options)
        self._repl: str | SessionFactory = value["repl"] if repl is None or isinstance(repl, str) else repl
        self._spare_kernels = spare_kernels
        self._pools: list[Pool] = []
        self._settings = EngineSettings(
            max_depth=value["max_depth"],
            max_iterations=value["max_iterations"],
            cell_timeout=value["cell_timeout"],
            vision=vision,
            system_prompt=system_prompt,
            backend=_backend(self._repl),
        )
        _check_usd_cap(self._budget, self._plan)

    def _make_plan(
        self,
        model: Models | None,
        sub_model: Models | None,
        value: Mapping[str, Any],
        prices: Mapping[str, Price],
        options: ModelOptions | Sequence[ModelOptions],
    ) -> ModelPlan:
        given: list[str | Model] = []
        for each, name in ((model, value["model"]), (sub_model, value["sub_model"])):
            if each is None or isinstance(each, str):
                # The default sub-model goes with the default model only.
                given += [name] if name is not None and (each or not given or model is None) else []
            elif isinstance(each, Model):
                given.append(each)
            else:
                given += each
        known: dict[str, Model] = {}
        for each in given:
            if isinstance(each, str) and each not in known:
                known[each] = self._open_model(each, value, prices)
        by_depth = [known[each] if isinstance(each, str) else each for each in given]
        return ModelPlan(by_depth, (options,) if isinstance(options, ModelOptions) else tuple(options))

    def _open_model(self, name: str, value: Mapping[str, Any], prices: Mapping[str, Price]) -> Model:
        from .models.openai import OpenAIModel  # noqa: PLC0415  on use

        model = OpenAIModel(name, base_url=value["base_url"], api_key=value["api_key"], prices=prices)
        self._owned.append(model)
        return model

    async def acompletion(
        self,
        query: str,
        context: Any = None,
        *,
        contexts: Mapping[str, Any] | None = None,
        readers: Sequence[Reader] = (),
        save: str | os.PathLike[str] | None = None,
    ) -> Answer:
        """Answer ``query`` over ``context``, or over several ``contexts`` by name.

        A context is text, bytes, a list, a dict, a DataFrame, an image, or a path to a file or folder; it
        becomes a variable in the REPL. ``save`` is the path of a trajectory to write.

        Raises:
            InputError: no question, or a context that can't be used; nothing was spent.
        """
        query = _question(query)
        collected = collect(context, contexts)
        with ExitStack() as stack:
            all_readers = [*self._readers, *readers]
            if save is not None:
                all_readers.append(stack.enter_context(_writer(save, self._secrets)))
            engine = Engine(
                self._plan, await self._sessions(), Ledger(self._budget), Emitter(all_readers), self._settings
            )
            answer = await engine.run(query, collected)
        return replace(answer, trace=None if save is None else os.fspath(save))

    def completion(
        self,
        query: str,
        context: Any = None,
        *,
        contexts: Mapping[str, Any] | None = None,
        readers: Sequence[Reader] = (),
        save: str | os.PathLike[str] | None = None,
    ) -> Answer:
        """Answer ``query`` and wait for it; see `acompletion`. Readers are called in another thread."""
        return background.run(self.acompletion(query, context, contexts=contexts, readers=readers, save=save))

    async def stream(
        self, query: str, context: Any = None, *, contexts: Mapping[str, Any] | None = None
    ) -> AsyncIterator[Event]:
        """Yield the events of a run as they happen; the last is the root's `RunFinished`.

        Leaving the loop early cancels the run.
        """
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        task = asyncio.create_task(
            self.acompletion(query, context, contexts=contexts, readers=[queue.put_nowait])
        )
        task.add_done_callback(lambda _: queue.put_nowait(None))
        try:
            while (event := await queue.get()) is not None:
                yield event
            await task
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task

    async def abatch(self, items: Sequence[Mapping[str, Any]], *, concurrency: int = 8) -> list[Answer]:
        """Answer several questions, ``concurrency`` at a time; each item holds `acompletion`'s arguments.

        Answers come in order, and one that fails stands as such among the others. The budget is each
        run's own.
        """
        slots = asyncio.Semaphore(concurrency)

        async def one(item: Mapping[str, Any]) -> Answer:
            async with slots:
                try:
                    return await self.acompletion(**item)
                except InputError as error:
                    return Answer("failed", "", reason=str(error))

        return list(await asyncio.gather(*(one(item) for item in items)))

    def batch(self, items: Sequence[Mapping[str, Any]], *, concurrency: int = 8) -> list[Answer]:
        """Answer several questions and wait for them; see `abatch`."""
        return background.run(self.abatch(items, concurrency=concurrency))

    async def _sessions(self) -> SessionFactory:
        """Return what makes the sessions of a run on this event loop."""
        if not isinstance(self._repl, str):
            return self._repl
        if self._spare_kernels < 1:
            return _local_session
        from .repl.pool import pool_of  # noqa: PLC0415  on use

        pool = await pool_of(_local_session)
        pool.size = max(pool.size if pool.users else 0, self._spare_kernels)
        pool.users.add(self)
        if pool not in self._pools:
            self._pools.append(pool)
        return pool.take

    async def aclose(self) -> None:
        """Close what was opened on this event loop: connections, and spare kernels that nobody else uses."""
        for model in self._owned:
            await model.aclose()
        here = asyncio.get_running_loop()
        for pool in [pool for pool in self._pools if pool.loop is here]:
            self._pools.remove(pool)
            await pool.leave(self)

    def close(self) -> None:
        """Close what synchronous calls have opened; see `aclose`."""
        background.run(self.aclose())

    def __enter__(self) -> RLM:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> RLM:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _cell_timeout(given: float | str | None) -> float | str | None:
    """Return the setting: None means no limit to callers, and "not given" to `config.resolve`."""
    if given is None:
        return "none"
    return None if given == "default" else given


def _question(query: Any) -> str:
    if not isinstance(query, str) or not query.strip():
        raise InputError("no question given", hint='ask one, such as completion(query="What changed?", ...)')
    return query.strip()


def _budget(value: Mapping[str, Any]) -> Budget:
    caps = ("usd", "tokens", "calls", "seconds", "errors")
    return Budget(**{cap: value[f"budget_{cap}"] for cap in caps})


def _check_usd_cap(budget: Budget, plan: ModelPlan) -> None:
    """Refuse a cap in USD that could not be held, before a request is sent."""
    if budget.usd is None or budget.tokens is not None:
        return
    for model in plan.models:
        if not getattr(model, "price_known", True):
            raise ConfigError(
                f"a budget of {budget.usd:g} USD can't be held: the price of {model.name} is not known",
                hint="give it with prices=, or cap tokens",
            )


def _writer(path: str | os.PathLike[str], secrets: Sequence[str]) -> Any:
    from .trace.jsonl import JsonlWriter  # noqa: PLC0415  on use

    return JsonlWriter(path, secrets=secrets)


def _local_session() -> JupyterSession:
    # Only when the first kernel starts, beside the first request: importing ZeroMQ takes its time.
    from .repl.local import local_session  # noqa: PLC0415

    return local_session()


def _backend(repl: str | SessionFactory) -> str:
    """Return the name of the backend, for events."""
    if not isinstance(repl, str):
        return str(getattr(repl, "backend", "custom"))
    if repl != "local":
        raise ConfigError(f"no REPL named {repl!r}", hint="there is: local")
    return repl
