"""`RLM`: the face of the package. It checks what it is given and wires the parts together."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from . import background, config, page
from .answer import Answer
from .checks import check_approvals, check_long_runs, check_usd_cap
from .context import Context, collect, reads_files
from .engine import Engine, EngineSettings
from .errors import InputError
from .estimate import Estimate
from .events import Emitter, Event
from .hooks import Hook, Hooks, checked_hooks, is_async, with_async
from .ledger import Budget, Ledger
from .live import LiveRun, approver
from .models.base import ModelOptions
from .models.named import Models, named_plan
from .repl import mainthread
from .repl.backend import Backend
from .repl.base import SessionFactory
from .runs import direct
from .runs.standing import Standing
from .runs.steering import Approval, Steering
from .session import Session
from .shapes import shape_of
from .tools import Toolbox, as_mapping, bind

if TYPE_CHECKING:
    from .models.prices import Price

__all__ = ["RLM"]

Reader = Callable[[Event], Any]


class RLM:
    """A Recursive Language Model whose REPL is a Jupyter kernel.

    Args:
        model: The root model: a name, a `Model`, or a list by depth.
        sub_model: The model of sub-calls and children: a name, a `Model`, or a list by further depths.
            Without one, the last of ``model`` does their work.
        base_url: An OpenAI-compatible endpoint for models given by name; ``gguf:PATH`` needs none.
        api_key: Its key. It stays in this process.
        api: How it is asked: ``chat`` or ``responses``.
        direct_below: Estimated tokens of question and contexts below which one plain call is tried in place
            of a run; None for never. `Answer.direct` tells.
        repl: Where model-written code runs: ``local``; ``sandbox``, without the user's files and network
            (docs/sandboxes.md); ``gateway``, see ``gateway_url``; ``shell``, this process's IPython shell, on
            the objects themselves, which keeps no key from it (see `rlm_kernel.repl.shell`);
            ``attach:KERNEL``, one that the user has open (docs/gateway.md); or a factory of sessions.
        gateway_url: With ``repl="gateway"``: the Kernel Gateway or Jupyter Server whose kernels run the code.
        gateway_token: Its token. It is sent in a header only, and no kernel has it.
        kernel_name: The kernelspec there; without one, its default.
        gateway_insecure: Whether plain http to another machine is allowed, where others can read along.
        share: With ``shell``, whether the variables that the model makes are the user's own.
        max_depth: The first depth at which ``rlm_query`` is a plain model call; 1 means no child has a REPL.
        max_iterations: Turns of a root model at most.
        cell_timeout: Seconds a cell may take; None for no limit.
        budget: Caps for the whole tree of a run.
        prices: Prices by model name (``*`` and ``?`` match any text), before those of the price list.
        options: How models are asked: one `ModelOptions`, or a list by depth.
        vision: Whether the root model is shown figures as images.
        system_prompt: Replaces the package's own system prompt.
        tools: The caller's functions that code in the REPL may call, by name: functions, or `Tool`s.
        readers: Functions, async ones too, that are given every event of every run.
        hooks: Functions by the type of the events they are given, see `rlm_kernel.hooks`.
        approve: Asked before a run goes on: is given an `Approval`, and returns True, False, a `Refusal`, or
            the code to run instead. Async, or a plain function, which is called in a thread of its own. The
            time that it takes is not the run's.
        approve_cells: Whether it is asked before every cell.
        approve_above_usd: It is asked before a turn whenever a run has spent this much more, in USD.
        lazy_above: Texts of more bytes than that are not loaded by kernels, which get a view of them, a
            `LazyText`; None for never.
        compact_at: The part of its window that a root conversation may fill before older turns are replaced
            by a summary; None for never.
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
        api: str | None = None,
        direct_below: int | None = None,
        repl: str | SessionFactory | None = None,
        gateway_url: str | None = None,
        gateway_token: str | None = None,
        kernel_name: str | None = None,
        gateway_insecure: bool | None = None,
        share: bool = False,
        max_depth: int | None = None,
        max_iterations: int | None = None,
        cell_timeout: float | Literal["default"] | None = "default",
        budget: Budget | None = None,
        prices: Mapping[str, Price] | None = None,
        options: ModelOptions | Sequence[ModelOptions] = (),
        vision: bool = False,
        system_prompt: str | None = None,
        tools: Mapping[str, Any] | None = None,
        readers: Sequence[Reader] = (),
        hooks: Mapping[str, Hook | Sequence[Hook]] | None = None,
        approve: Callable[[Approval], Any] | None = None,
        approve_cells: bool = False,
        approve_above_usd: float | None = None,
        lazy_above: int | None = None,
        compact_at: float | None = 0.85,
        spare_kernels: int = 2,
    ) -> None:
        settings = config.resolve(
            {
                "model": model if isinstance(model, str) else None,
                "sub_model": sub_model if isinstance(sub_model, str) else None,
                "base_url": base_url,
                "api_key": api_key,
                "api": api,
                "direct_below": direct_below,
                "repl": repl if isinstance(repl, str) else None,
                "gateway_url": gateway_url,
                "gateway_token": gateway_token,
                "kernel_name": kernel_name,
                "gateway_insecure": gateway_insecure,
                "max_depth": max_depth,
                "max_iterations": max_iterations,
                "cell_timeout": _cell_timeout(cell_timeout),
            }
        )
        value = {name: setting.value for name, setting in settings.items()}
        self._budget = budget or _budget(value)
        self._readers = tuple(readers)
        self._hooks = checked_hooks(hooks)
        self._approve = approver(approve)
        self._approve_cells = approve_cells
        self._approve_above_usd = approve_above_usd
        self._tools = as_mapping(tools or {})
        self._bound_tools = bind(self._tools)
        self._state_dir: str | None = value["state_dir"]
        self._secrets = [value[name] for name in ("api_key", "gateway_token") if value[name]]
        self._plan, self._owned = named_plan(model, sub_model, value, prices or {}, options)
        where: str | SessionFactory = value["repl"] if repl is None or isinstance(repl, str) else repl
        self._backend = Backend(where, share=share, spare_kernels=spare_kernels, settings=value)
        self._settings = EngineSettings(
            max_depth=value["max_depth"],
            max_iterations=value["max_iterations"],
            cell_timeout=value["cell_timeout"],
            vision=vision,
            system_prompt=system_prompt,
            direct_below=value["direct_below"],
            lazy_above=lazy_above,
            compact_at=compact_at,
            backend=self._backend.name,
        )
        check_usd_cap(self._budget, self._plan)
        check_long_runs(lazy_above, compact_at)
        check_approvals(approve, approve_cells, approve_above_usd, self._plan)

    async def acompletion(
        self,
        query: str,
        context: Any = None,
        *,
        contexts: Mapping[str, Any] | None = None,
        tools: Mapping[str, Any] | None = None,
        output: Any = None,
        cite: bool = False,
        readers: Sequence[Reader] = (),
        save: str | os.PathLike[str] | None = None,
    ) -> Answer:
        """Answer ``query`` over ``context``, or over several ``contexts`` by name.

        A context is text, bytes, a list, a dict, a DataFrame, an image, or a path to a file or folder; it
        becomes a variable in the REPL. ``tools`` are offered beside those of this object. ``output`` is what
        `Answer.value` must be: a JSON schema, or a type that pydantic knows. With ``cite`` it comes with
        quotes, each checked against the context, as `Answer.evidence`. ``save`` is the path of a trajectory
        to write.

        Raises:
            InputError: no question, or a context, a tool or an output that can't be used; nothing was spent.
        """
        # Documents take their time to read, and the event loop has other runs.
        if reads_files(context, contexts):
            collected = await page.aside(collect, context, contexts, live=self._in_shell)
        else:
            collected = collect(context, contexts, live=self._in_shell)
        return await self._run(
            query, collected, tools=tools, output=output, cite=cite, readers=readers, save=save
        )

    async def _run(
        self,
        query: str,
        collected: Sequence[Context],
        *,
        tools: Mapping[str, Any] | None = None,
        output: Any = None,
        cite: bool = False,
        readers: Sequence[Reader] = (),
        save: str | os.PathLike[str] | None = None,
        budget: Budget | None = None,
        emitter: Emitter | None = None,
        steering: Steering | None = None,
        standing: Standing | None = None,
    ) -> Answer:
        """Make one run; see `acompletion`. What a live run or a session has already is given, not made."""
        query = _question(query)
        if self._is_away:
            options = {"tools": tools, "output": output, "cite": cite, "readers": readers, "save": save}
            live = {"budget": budget, "emitter": emitter, "steering": steering, "standing": standing}
            return await background.there(self._run(query, collected, **options, **live))  # type: ignore[arg-type]
        shape = None if output is None else shape_of(output)
        toolbox = self._toolbox(tools, [each.name for each in collected])
        emitter = emitter or Emitter()
        with ExitStack() as stack:
            given = [*self._readers, *readers]
            for reader in given:
                if not is_async(reader):
                    emitter.add(reader)
            if save is not None:
                emitter.add(stack.enter_context(_writer(save, self._secrets)))
            hooks = Hooks(with_async(self._hooks, filter(is_async, given)))
            hooks.attach(emitter)
            engine = Engine(
                self._plan,
                await self._backend.sessions(),
                Ledger(budget or self._budget),
                emitter,
                self._settings,
                tools=toolbox,
                output=shape,
                cite=cite,
                steering=steering or self._steering(),
                child_sessions=await self._backend.child_sessions() if self._settings.max_depth > 1 else None,
            )
            try:
                answer = await engine.run(query, collected, standing)
            finally:
                await hooks.drain()
        return replace(answer, trace=None if save is None else os.fspath(save))

    def _steering(self) -> Steering:
        return Steering(self._approve, cells=self._approve_cells, above_usd=self._approve_above_usd)

    def start(
        self,
        query: str,
        context: Any = None,
        *,
        contexts: Mapping[str, Any] | None = None,
        in_background: bool = False,
        **options: Any,
    ) -> LiveRun:
        """Start answering ``query``; return the run under way, which can be steered, stopped and awaited.

        It runs on this thread's event loop if there is one, else, or with ``in_background``, on that of the
        background. ``options`` are those of `acompletion`.

        Raises:
            InputError: no question, or a context that can't be used; nothing was spent.
        """
        collected = collect(context, contexts, live=self._in_shell)
        return self._live(
            query,
            lambda emitter, steering: self._run(
                query, collected, emitter=emitter, steering=steering, **options
            ),
            in_background=in_background,
        )

    def _live(
        self,
        query: str,
        work: Callable[[Emitter, Steering], Coroutine[Any, Any, Answer]],
        *,
        in_background: bool,
    ) -> LiveRun:
        query = _question(query)
        emitter, steering = Emitter(), self._steering()
        if self._in_shell:
            mainthread.note_loop()
        return LiveRun(
            query,
            work(emitter, steering),
            emitter=emitter,
            steering=steering,
            in_background=in_background or self._in_shell,
        )

    def session(
        self,
        context: Any = None,
        *,
        contexts: Mapping[str, Any] | None = None,
        budget: Budget | None = None,
        tools: Mapping[str, Any] | None = None,
        name: str | None = None,
        idle: float | None = None,
    ) -> Session:
        """Open a session: several questions over these contexts and one kernel; see `Session`.

        ``budget`` caps all its questions together, besides the budget of each. ``tools`` are as in
        `acompletion`, for all its questions. With a ``name``, which ``repl="gateway"`` has, the session
        outlives this process: opened again by that name, it has its kernel, variables, contexts and history.
        Its kernel ends after ``idle`` seconds without anybody, an hour if that is not given.

        Raises:
            InputError: a context that can't be used, a budget that can't be held, or a session in use.
        """
        budget = budget or Budget()
        check_usd_cap(budget, self._plan)
        collected = collect(context, contexts, live=self._in_shell)
        if name is None:
            if idle is not None:
                raise InputError("idle= is for named sessions", hint="give name= as well")
            return Session(self, collected, budget, tools)
        from .repl.gateway.named import Named, state_folder  # noqa: PLC0415  on use

        named = Named(state_folder(self._state_dir), name, self._backend.gateway, idle)
        try:
            return Session(self, collected, budget, tools, named)
        except BaseException:
            named.release()
            raise

    def estimate(
        self, query: str, context: Any = None, *, contexts: Mapping[str, Any] | None = None
    ) -> Estimate:
        """Estimate what one direct call with everything in its prompt would take; nothing is sent.

        Raises:
            InputError: as by `acompletion`.
        """
        asked = collect(context, contexts, live=self._in_shell)
        return direct.estimate(self._plan.at(0), self._plan.options_at(0), _question(query), asked)

    def completion(
        self,
        query: str,
        context: Any = None,
        *,
        contexts: Mapping[str, Any] | None = None,
        tools: Mapping[str, Any] | None = None,
        output: Any = None,
        cite: bool = False,
        readers: Sequence[Reader] = (),
        save: str | os.PathLike[str] | None = None,
    ) -> Answer:
        """Answer ``query`` and wait for it; see `acompletion`. Readers are called in another thread."""
        options = {"tools": tools, "output": output, "cite": cite, "readers": readers, "save": save}
        return background.run(self.acompletion(query, context, contexts=contexts, **options))

    async def stream(
        self,
        query: str,
        context: Any = None,
        *,
        contexts: Mapping[str, Any] | None = None,
        tools: Mapping[str, Any] | None = None,
        output: Any = None,
        cite: bool = False,
    ) -> AsyncIterator[Event]:
        """Yield the events of a run as they happen; the last is the root's `RunFinished`.

        Leaving the loop early cancels the run.
        """
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        here = asyncio.get_running_loop()
        task = asyncio.create_task(
            self.acompletion(
                query,
                context,
                contexts=contexts,
                tools=tools,
                output=output,
                cite=cite,
                # Where cells take the main thread, events come from another one.
                readers=[lambda event: here.call_soon_threadsafe(queue.put_nowait, event)],
            )
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

    def _toolbox(self, tools: Mapping[str, Any] | None, contexts: Sequence[str]) -> Toolbox | None:
        """Return the functions of one run, whose contexts have these names; None without any."""
        found = self._bound_tools if tools is None else bind({**self._tools, **as_mapping(tools)})
        if not found:
            return None
        toolbox = Toolbox(found, secrets=self._secrets)
        toolbox.check_contexts(contexts)
        return toolbox

    @property
    def _in_shell(self) -> bool:
        """Whether cells run in the user's own shell, on the objects themselves."""
        return self._backend.in_shell

    @property
    def _is_away(self) -> bool:
        """Whether this is another event loop than the one that runs need whose cells take the main thread."""
        return self._in_shell and not background.is_here()

    async def aclose(self) -> None:
        """Close what was opened on this event loop: connections, and spare kernels that nobody else uses."""
        if self._is_away:
            await background.there(self.aclose())
            return
        for model in self._owned:
            await model.aclose()
        await self._backend.leave()

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


def _writer(path: str | os.PathLike[str], secrets: Sequence[str]) -> Any:
    from .trace.jsonl import JsonlWriter  # noqa: PLC0415  on use

    if os.fspath(path).endswith((".ipynb", ".html", ".md")):
        raise InputError(
            f"save= writes JSON lines, which {os.fspath(path)!r} is no name for",
            hint="pass readers=[rlm_kernel.notebook.Saver(path)], or export the trajectory afterwards",
        )
    return JsonlWriter(path, secrets=secrets)
