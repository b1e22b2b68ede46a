"""One run at one depth: its turns, its answer, its children, and what it tells of itself.

How answers are judged is told in `rlm_kernel.dialect`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

from .. import dialect, feedback, prompts
from ..answer import Answer, CellRecord
from ..context import Context
from ..errors import (
    BudgetExceededError,
    CallError,
    ContextError,
    KernelError,
    KernelInterruptedError,
    ModelError,
    OutputError,
)
from ..estimate import Estimate
from ..events import (
    CellFinished,
    CellOutput,
    CellStarted,
    KernelLost,
    KernelStarted,
    MessageAdded,
    Notice,
    RunStatus,
)
from ..messages import Message, Part, sendable
from ..repl.base import CellResult, FinalAnswer, KernelInfo
from ..repl.supervisor import Supervisor
from . import asides, reports
from .answercheck import AnswerCheck
from .citing import Citing
from .conversation import Conversation
from .judging import Judge
from .reins import Reins
from .rootcalls import RootCalls
from .standing import Standing
from .subcalls import Place, SubCalls
from .window import Window

if TYPE_CHECKING:
    from ..engine import Engine

__all__ = ["Run"]


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
        standing: Standing | None = None,
    ) -> None:
        self.engine = engine
        self.settings = engine.settings
        self.ledger = engine.ledger
        self.emit = engine.emitter.emit
        self.id = f"r{next(engine.ids)}"
        self.query = query
        self.contexts = [context.lazy_above(self.settings.lazy_above) for context in contexts]
        self.depth = depth
        self.parent = parent
        self.model = engine.plan.at(depth, model)
        self.standing = standing
        self.conversation = Conversation(self._added)
        self.history: list[CellRecord] = []
        self.turn = 0
        self.draft = ""
        self.transcript = ""
        self.words = ""
        self.variables = standing.variables if standing else ()
        self.cut_short = False
        self.failed_turns = 0
        self.estimate: Estimate | None = None
        self.direct = False
        self.started = time.monotonic()
        deeper = depth + 1 < self.settings.max_depth
        self.subcalls = SubCalls(
            engine.plan,
            engine.ledger,
            engine.emitter,
            engine.ids,
            self._child if deeper else None,
            tools=engine.tools,
        )
        self.tools = engine.tools.described(depth) if engine.tools else ()
        stubs = engine.tools.stubs(depth) if engine.tools else ()
        repl = standing.repl if standing else None
        sessions = engine.child_sessions if depth else engine.sessions
        self.repl = repl or Supervisor(sessions, self.contexts, tools=stubs)
        if standing is not None:
            standing.repl = self.repl
        self.check = AnswerCheck(engine.output if depth == 0 else None)
        self.citing = Citing(self.contexts, wanted=engine.cite and depth == 0, notice=self._notice)
        self.judge = Judge(self)
        self.reins = Reins(self)
        self.repl.report(on_start=self._kernel_started, on_loss=self._kernel_lost, on_notice=self._notice)
        self.window = Window(
            self.id,
            self.conversation,
            RootCalls(engine, self.id, depth, self.model, self.repl),
            engine.emitter,
            options=engine.plan.options_at(depth),
            share=self.settings.compact_at,
            shelve=self._shelve,
        )

    # The run as a whole -----------------------------------------------------------------------------

    async def answer(self) -> Answer:
        """Run to the end; see `rlm_kernel.engine.Engine.run`."""
        self.emit(reports.started(self))
        for notice in reports.refusals(self):
            self.emit(notice)
        final: FinalAnswer | None = None
        status: RunStatus = "cancelled"
        reason = "the run was cancelled"
        try:
            # A child's time is the tree's: only the root keeps the clock, and cancels all below.
            async with asyncio.timeout(self.ledger.seconds_left if self.depth == 0 else None) as clock:
                if self.depth == 0:
                    self.engine.steering.clock = clock
                final = await self._turns()
            await self.citing.check(final)
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
        except KernelInterruptedError as error:
            status, reason = "cancelled", str(error)
        except (ModelError, KernelError, OutputError) as error:
            status, reason = "failed", str(error)
            if error.hint:
                reason += f" ({error.hint})"
        except Exception as error:
            status, reason = "failed", f"{type(error).__name__}: {error}"
            raise
        finally:
            await (self.repl.rest() if self.standing else self.repl.close())
            self.reins.let_go()
            answer = self._outcome(*self.citing.held(final, status, reason))
            if self.depth == 0:
                self.engine.steering.outcome = answer
            self.emit(reports.finished(self, answer))
        return self.check.revived(answer)

    async def _turns(self) -> FinalAnswer | None:
        await self._open()
        while self.turn < self.settings.max_iterations + self.check.extra_turns + self.citing.extra_turns:
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
            tools=self.tools,
            output=self.check.schema,
            cite=self.citing.wanted,
            bare_python=self.settings.backend in ("pyodide", "lite"),
        )
        own = self.settings.system_prompt
        system = prompts.own_system_prompt(own, spec) if own else prompts.system_prompt(spec)
        infos = [context.info() for context in self.contexts]
        self._say("system", system)
        lent = asides.USERS_KERNEL if self.settings.backend == "attach" and self.depth == 0 else ""
        notes = [lent, self._session_note(), *await self.reins.between_turns()]
        status = self._status_line()
        self._say("user", prompts.first_message(self.query, infos, status, "\n\n".join(filter(None, notes))))

    async def _ask(self) -> str:
        """Ask the root model for its turn; the kernel starts meanwhile."""
        reply = await self.window.ask(self.turn)
        self.cut_short = reply.finish_reason == "length"
        self.words = reply.text
        return reply.text

    async def _shelve(self, messages: Sequence[Message]) -> str:
        """Leave the whole conversation in the REPL; return the variable's name."""
        taken = {*self.variables, *self.repl.names} - {self.transcript}
        self.transcript = asides.free_name("transcript", taken)
        await self.repl.load([Context.of(self.transcript, [dict(message) for message in messages])])
        return self.transcript

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
        refused = False
        for number, block in enumerate(blocks, 1):
            code = await self.reins.approved(block.code, number, notes)
            if code is None:
                refused = True
                break
            result = await self.execute(code, number)
            cells.append(reports.of_cell(number, result))
            final = self.judge.of_code(result.final, number, notes)
            if final is not None or result.status != "ok":
                break
        if final is None and reply.final is not None and not refused:
            judge = partial(self.judge.of_text, cells=cells, notes=notes)
            run = partial(self.execute, number=len(cells) + 1)
            final = await self.citing.read(reply.final, self.words, judge, run)
        if final is not None:
            self.draft = final.text
            final = self.citing.take(self.check.take(final, notes), notes)
        if final is not None:
            return final
        if not blocks and not notes:
            notes.append(prompts.no_code([context.name for context in self.contexts]))
        self._count_failure(cells)
        notes += await self.reins.between_turns()
        self._say(
            "user",
            feedback.cells_message(
                cells,
                notes,
                self._status_line(),
                blocks=len(cells) if refused else len(blocks),
                vision=self.settings.vision,
            ),
        )
        return None

    async def execute(self, code: str, number: int) -> CellResult:
        """Execute ``code`` as block ``number`` of the turn; 0 is for the user's."""
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
        if self.standing is not None:
            self.standing.variables = result.variables
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
            reply = await self.window.ask(self.turn)
        except (ModelError, BudgetExceededError) as error:
            self._notice(f"no best effort to be had: {error}")
            return
        parsed = dialect.parse(reply.text)
        best = parsed.final.argument if parsed.final and parsed.final.kind == "FINAL" else parsed.prose
        self.draft = best.strip()

    def _out_of_turns(self) -> str:
        return f"no answer within {self.settings.max_iterations} turns; the text is a best effort"

    def _outcome(self, final: FinalAnswer | None, status: RunStatus, reason: str) -> Answer:
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
            messages=tuple(self.conversation.transcript),
            direct=self.direct,
            estimate=self.estimate,
            evidence=self.citing.evidence,
        )

    # Events -----------------------------------------------------------------------------------------

    def _kernel_started(self, info: KernelInfo, seconds: float, again: bool) -> None:  # noqa: FBT001
        self.emit(
            KernelStarted(
                run=self.id,
                kernel=info.id,
                backend=info.backend,
                implementation=info.implementation,
                seconds=seconds,
                again=again,
                digests={each.name: each.sha256 for each in self.contexts if each.sha256},
            )
        )

    def _kernel_lost(self, kernel: str, cause: str) -> None:
        self.emit(KernelLost(run=self.id, kernel=kernel, cause=cause))

    def _say(self, role: Literal["system", "user", "assistant"], content: str | list[Part]) -> None:
        self.conversation.add({"role": role, "content": sendable(content)})

    def _added(self, message: Message) -> None:
        self.emit(MessageAdded(run=self.id, turn=self.turn, message=message))

    def _notice(self, text: str) -> None:
        self.emit(Notice(run=self.id, text=text))

    def _session_note(self) -> str:
        """What a question of a session is told of those before it."""
        if self.standing is None:
            return ""
        lost = self.repl.renew() or self.standing.lost
        for note in self.standing.notes:
            self._notice(note)
        self.standing.lost, self.standing.notes = False, ()
        if lost:
            self.variables = ()
        return asides.session(self.standing.history, self.variables, lost=lost)

    def _status_line(self) -> str:
        """What the next turn is told of where it stands; nothing when there is no next turn."""
        if self.turn >= self.settings.max_iterations:
            return ""
        return prompts.status_line(self.turn + 1, self.settings.max_iterations, self.ledger.left())
