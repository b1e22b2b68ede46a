"""One run at one depth: its turns, its answer, its children, and what it tells of itself.

How answers are judged is told in `rlm_kernel.dialect`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Literal

from . import __version__, dialect, feedback, prompts
from .answer import Answer, CellRecord
from .context import Context
from .errors import BudgetExceededError, CallError, ContextError, KernelError, ModelError
from .events import (
    CallDelta,
    CallStarted,
    CellFinished,
    CellOutput,
    CellStarted,
    KernelLost,
    KernelStarted,
    MessageAdded,
    Notice,
    RunFinished,
    RunStarted,
    RunStatus,
)
from .messages import Message, Part, sendable
from .models.base import Reply, Request
from .opencall import OpenCall
from .repl.base import CellResult, FinalAnswer, KernelInfo
from .repl.supervisor import Supervisor
from .subcalls import Place, SubCalls

if TYPE_CHECKING:
    from .engine import Engine

__all__ = ["Run"]

# Long enough for a request to be sent, short beside a kernel's start.
KERNEL_DELAY_SECONDS = 0.02


class Run:
    """One run at one depth."""

    def __init__(
        self,
        engine: Engine,
        query: str,
        contexts: Sequence[Context],
        *,
        depth: int,
        parent: tuple[str, str] | None = None,
        model: str | None = None,
    ) -> None:
        self.engine = engine
        self.settings = engine.settings
        self.ledger = engine.ledger
        self.emit = engine.emitter.emit
        self.id = f"r{next(engine.ids)}"
        self.query = query
        self.contexts = contexts
        self.depth = depth
        self.parent = parent
        self.model = engine.plan.at(depth, model)
        self.messages: list[Message] = []
        self.history: list[CellRecord] = []
        self.turn = 0
        self.draft = ""
        self.words = ""
        self.variables: tuple[str, ...] = ()
        self.cut_short = False
        self.failed_turns = 0
        self.refused = False
        self.started = time.monotonic()
        deeper = depth + 1 < self.settings.max_depth
        self.subcalls = SubCalls(
            engine.plan, engine.ledger, engine.emitter, engine.ids, self._child if deeper else None
        )
        self.repl = Supervisor(
            engine.sessions, contexts, on_start=self._kernel_started, on_loss=self._kernel_lost
        )

    # The run as a whole -----------------------------------------------------------------------------

    async def answer(self) -> Answer:
        """Run to the end; see `rlm_kernel.engine.Engine.run`."""
        self._announce()
        final: FinalAnswer | None = None
        status: RunStatus = "cancelled"
        reason = "the run was cancelled"
        try:
            # A child's time is the tree's: only the root keeps the clock, and cancels all below.
            async with asyncio.timeout(self.ledger.seconds_left if self.depth == 0 else None) as clock:
                final = await self._turns()
            status, reason = ("answered", "") if final else ("exhausted", self._out_of_turns())
        except TimeoutError:
            if not clock.expired():
                status, reason = "failed", "something the run waited for took too long"
                raise
            status, reason = "timed_out", f"the budget of {self.ledger.budget.seconds:g} seconds is used up"
        except BudgetExceededError as error:
            status = "timed_out" if error.cap == "seconds" else "over_budget"
            reason = str(error)
        except ContextError as error:
            status, reason = "failed", str(error)
            raise
        except (ModelError, KernelError) as error:
            status, reason = "failed", str(error)
            if error.hint:
                reason += f" ({error.hint})"
        except Exception as error:
            status, reason = "failed", f"{type(error).__name__}: {error}"
            raise
        finally:
            await self.repl.close()
            answer = self._outcome(status, reason, final)
            self._conclude(answer)
        return answer

    async def _turns(self) -> FinalAnswer | None:
        await self._open()
        while self.turn < self.settings.max_iterations:
            self.turn += 1
            reply = dialect.parse(await self._ask())
            final = await self._act(reply)
            if final is not None:
                return final
        await self._wrap_up()
        return None

    async def _open(self) -> None:
        spec = prompts.PromptSpec(
            context_names=tuple(context.name for context in self.contexts),
            has_recursion=self.depth + 1 < self.settings.max_depth,
            depth=self.depth,
            max_iterations=self.settings.max_iterations,
            cell_timeout=self.settings.cell_timeout,
            output_chars=self.settings.output_chars,
            vision=self.settings.vision,
            models=self.engine.plan.names,
            budget=self.ledger.left(),
        )
        system = self.settings.system_prompt or prompts.system_prompt(spec)
        infos = [context.info() for context in self.contexts]
        self._say("system", system)
        self._say("user", prompts.first_message(self.query, infos, self._status_line()))

    async def _ask(self) -> str:
        """Ask the root model for its turn; the kernel starts meanwhile."""
        text = await self._request()
        self.words = text
        return text

    async def _request(self) -> str:
        self.ledger.admit()
        request = Request(
            tuple(self.messages),
            self.engine.plan.options_at(self.depth),
            cache_key=f"rlm-{self.id}",
            timeout=self.ledger.seconds_left,
        )
        started = CallStarted(
            run=self.id,
            call=f"c{next(self.engine.ids)}",
            kind="root",
            turn=self.turn,
            depth=self.depth,
            model=self.model.name,
        )
        with OpenCall(self.engine.emitter, started) as done:
            reply: Reply | None = None
            async for piece in self._stream(request):
                if isinstance(piece, str):
                    self.emit(CallDelta(run=self.id, call=done.call, text=piece))
                else:
                    reply = piece
            if reply is None:
                raise RuntimeError(f"the stream of {self.model.name} ended without a reply")
            self.ledger.record(self.model.name, self.depth, reply.usage)
            done(reply)
        self.cut_short = reply.finish_reason == "length"
        return reply.text

    async def _stream(self, request: Request) -> AsyncIterator[str | Reply]:
        """Stream the root's turn; once the request is under way, start the kernel beside it."""
        # Where a model has something to make ready, the kernel must not take the processors from it.
        make_ready = getattr(self.model, "open", None)
        if make_ready is not None and not self.repl.begun:
            await make_ready()
        async with aclosing(self.model.stream(request)) as pieces:  # type: ignore[type-var]
            first = asyncio.ensure_future(anext(pieces, None))
            try:
                await asyncio.wait({first}, timeout=KERNEL_DELAY_SECONDS)
                self.repl.begin()
                piece = await first
            finally:
                first.cancel()
            while piece is not None:
                yield piece
                piece = await anext(pieces, None)

    # Acting on a reply ------------------------------------------------------------------------------

    async def _act(self, reply: dialect.ParsedReply) -> FinalAnswer | None:
        """Execute a reply's code, judge its answer, and tell the root what came of it."""
        self._say("assistant", self.words[: reply.invented_at])
        notes = [] if reply.invented_at is None else [prompts.INVENTED_OUTPUT]
        blocks = reply.blocks
        if self.cut_short:
            notes.append(prompts.CUT_REPLY)
            blocks = tuple(block for block in blocks if block.closed)
        cells: list[feedback.CellFeedback] = []
        final: FinalAnswer | None = None
        for number, block in enumerate(blocks, 1):
            result = await self._execute(block.code, number)
            cells.append(_feedback(number, result))
            final = self._judge(result.final, number, notes)
            if final is not None or result.status != "ok":
                break
        if final is None and reply.final is not None:
            final = await self._judge_text(reply.final, cells, notes)
        if final is not None:
            return final
        if not blocks and not notes:
            notes.append(prompts.NO_CODE)
        self._count_failure(cells)
        self._say(
            "user",
            feedback.cells_message(
                cells,
                notes,
                self._status_line(),
                blocks=len(blocks),
                vision=self.settings.vision,
            ),
        )
        return None

    def _judge(self, final: FinalAnswer | None, number: int, notes: list[str]) -> FinalAnswer | None:
        """Refuse, once, an answer that a first reply gives after code whose output it had not seen."""
        if final is not None and self.turn == 1 and number > 1 and not self.refused:
            self.refused = True
            notes.append(prompts.REFUSED_UNSEEN)
            return None
        return final

    async def _judge_text(
        self, final: dialect.TextFinal, cells: Sequence[feedback.CellFeedback], notes: list[str]
    ) -> FinalAnswer | None:
        """Judge ``FINAL(...)`` and ``FINAL_VAR(...)`` written beside, or instead of, code."""
        failed = any(cell.status != "ok" for cell in cells)
        unseen = self.turn == 1 and not self.refused and (bool(cells) or bool(self.contexts))
        if final.kind == "FINAL" and cells:
            notes.append(prompts.REFUSED_FINAL)
            return None
        if failed:
            return None
        if unseen:
            self.refused = True
            notes.append(prompts.REFUSED_UNSEEN)
            return None
        # Small models write FINAL(total) for the variable of that name.
        if final.kind == "FINAL" and final.argument not in self.variables:
            return FinalAnswer(final.argument, final.argument, "FINAL")
        result = await self._execute(f"FINAL_VAR({final.argument!r})", len(cells) + 1)
        if result.final is None:
            notes.append(prompts.undefined_final_var(final.argument, result.variables))
        return result.final

    async def _execute(self, code: str, number: int) -> CellResult:
        await self.repl.ready()
        cell = f"x{next(self.engine.ids)}"
        place = Place(self.id, self.depth, self.turn, cell)
        self.emit(CellStarted(run=self.id, cell=cell, turn=self.turn, block=number, code=code))
        try:
            result = await self.repl.execute(
                code,
                timeout=self.settings.cell_timeout,
                on_call=lambda call: self.subcalls.answer(call, place),
                on_output=lambda output: self.emit(CellOutput(run=self.id, cell=cell, output=output)),
            )
        except BaseException:
            self.emit(CellFinished(run=self.id, cell=cell, status="cancelled"))
            raise
        self.draft = result.draft or self.draft
        self.variables = result.variables
        self.history.append(CellRecord(self.turn, code, result.status, result.outputs, result.seconds))
        self.emit(
            CellFinished(
                run=self.id,
                cell=cell,
                status=result.status,
                outputs=result.outputs,
                seconds=result.seconds,
                lost=result.lost,
            )
        )
        return result

    def _count_failure(self, cells: Sequence[feedback.CellFeedback]) -> None:
        failed = any(cell.status != "ok" for cell in cells)
        self.failed_turns = self.failed_turns + 1 if failed else 0
        cap = self.ledger.budget.errors
        if cap is not None and self.failed_turns >= cap:
            raise BudgetExceededError("errors", cap, self.failed_turns)

    async def _child(self, query: str, context: Context | None, call: str, model: str | None) -> str:
        contexts = () if context is None else (context,)
        child = Run(self.engine, query, contexts, depth=self.depth + 1, parent=(self.id, call), model=model)
        try:
            answer = await child.answer()
        except ContextError as error:
            raise CallError(str(error), kind="bad_request") from None
        if answer:
            return answer.text
        if answer.status == "exhausted" and answer.text:
            # The child's best effort is worth more to its parent than a failure; it is marked in the trace.
            return answer.text
        kind = "budget" if answer.status in ("over_budget", "timed_out") else "model"
        raise CallError(f"the child gave no answer: {answer.reason}", kind=kind)

    # The end ----------------------------------------------------------------------------------------

    async def _wrap_up(self) -> None:
        """Out of turns: ask once more, for the best the root can say."""
        if self.draft:
            return
        self._say("user", prompts.wrap_up_message())
        try:
            parsed = dialect.parse(await self._request())
        except (ModelError, BudgetExceededError) as error:
            self.emit(Notice(run=self.id, text=f"no best effort to be had: {error}"))
            return
        best = parsed.final.argument if parsed.final and parsed.final.kind == "FINAL" else parsed.prose
        self.draft = best.strip()

    def _out_of_turns(self) -> str:
        return f"no answer within {self.settings.max_iterations} turns; the text is a best effort"

    def _outcome(self, status: RunStatus, reason: str, final: FinalAnswer | None) -> Answer:
        text = final.text if final else self.draft or dialect.parse(self.words).prose.strip()
        return Answer(
            status=status,
            text=text,
            value=final.value if final else None,
            reason=reason,
            usage=self.ledger.usage,
            iterations=self.turn,
            total_calls=self.ledger.calls,
            seconds=time.monotonic() - self.started,
            repl_history=tuple(self.history),
            messages=tuple(self.messages),
        )

    # Events -----------------------------------------------------------------------------------------

    def _announce(self) -> None:
        plan, budget = self.engine.plan, self.ledger.budget
        self.emit(
            RunStarted(
                run=self.id,
                parent_run=self.parent[0] if self.parent else None,
                parent_call=self.parent[1] if self.parent else None,
                depth=self.depth,
                query=self.query,
                contexts=tuple(context.info() for context in self.contexts),
                model=self.model.name,
                sub_model=plan.at(self.depth + 1).name,
                repl=self.settings.backend,
                limits={
                    "max_depth": self.settings.max_depth,
                    "max_iterations": self.settings.max_iterations,
                    "cell_timeout": self.settings.cell_timeout,
                    "usd": budget.usd,
                    "tokens": budget.tokens,
                    "calls": budget.calls,
                    "seconds": budget.seconds,
                    "errors": budget.errors,
                },
                package=__version__,
                sources=tuple(self.contexts),
            )
        )

    def _conclude(self, answer: Answer) -> None:
        self.emit(
            RunFinished(
                run=self.id,
                status=answer.status,
                text=answer.text,
                value=answer.value,
                reason=answer.reason,
                iterations=answer.iterations,
                calls=answer.total_calls,
                usage=self.ledger.total,
                seconds=answer.seconds,
            )
        )

    def _kernel_started(self, info: KernelInfo, seconds: float, again: bool) -> None:  # noqa: FBT001
        self.emit(
            KernelStarted(
                run=self.id,
                kernel=info.id,
                backend=info.backend,
                implementation=info.implementation,
                seconds=seconds,
                again=again,
            )
        )

    def _kernel_lost(self, kernel: str, cause: str) -> None:
        self.emit(KernelLost(run=self.id, kernel=kernel, cause=cause))

    def _say(self, role: Literal["system", "user", "assistant"], content: str | list[Part]) -> None:
        message: Message = {"role": role, "content": sendable(content)}
        self.messages.append(message)
        self.emit(MessageAdded(run=self.id, turn=self.turn, message=message))

    def _status_line(self) -> str:
        """What the next turn is told of where it stands; nothing when there is no next turn."""
        if self.turn >= self.settings.max_iterations:
            return ""
        return prompts.status_line(self.turn + 1, self.settings.max_iterations, self.ledger.left())


def _feedback(number: int, result: CellResult) -> feedback.CellFeedback:
    return feedback.CellFeedback(
        number, result.status, result.outputs, result.seconds, result.lost, result.variables
    )
