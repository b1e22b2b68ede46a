"""Ask the root model, execute what it writes, show it what came out, until there is an answer.

The engine knows models, REPLs, the ledger and events; no HTTP, no Jupyter, no IPython. It starts no thread
and no process, so it also runs in a browser. Here is what all runs of one tree share; one of them is
`rlm_kernel.runs.run.Run`, and a child is a run one level deeper, with a REPL of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from .answer import Answer
from .context import Context
from .events import Emitter
from .ledger import Ledger
from .models.plan import ModelPlan
from .repl.base import SessionFactory
from .runs.direct import first_run
from .runs.standing import Standing
from .runs.steering import Steering
from .runs.subcalls import Tools
from .shapes import Shape

__all__ = ["Engine", "EngineSettings"]


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How runs of one tree behave.

    ``max_depth`` is the first depth at which a child is a plain model call (the root's depth is 0);
    ``cell_timeout`` in seconds, None for no limit; ``output_chars`` what a cell's streams may show each;
    ``system_prompt`` replaces the package's own; below ``direct_below`` tokens one plain call is tried
    first; texts of more than ``lazy_above`` bytes are views in the kernel; a root conversation is compacted
    when it fills ``compact_at`` of its model's window; ``backend`` is the REPL's name, for events.
    """

    max_depth: int = 1
    max_iterations: int = 20
    cell_timeout: float | None = 120.0
    output_chars: int = 20_000
    vision: bool = False
    system_prompt: str | None = None
    direct_below: int | None = None
    lazy_above: int | None = None
    compact_at: float | None = 0.85
    backend: str = "local"


class Engine:
    """What all runs of one tree share.

    ``output`` is what the root's answer must be, ``cite`` whether it is to come with quotes, ``steering``
    what a person has to say to it, ``child_sessions`` what makes the REPLs of children, if something else.
    """

    def __init__(
        self,
        plan: ModelPlan,
        sessions: SessionFactory,
        ledger: Ledger,
        emitter: Emitter,
        settings: EngineSettings | None = None,
        *,
        tools: Tools | None = None,
        output: Shape | None = None,
        cite: bool = False,
        steering: Steering | None = None,
        child_sessions: SessionFactory | None = None,
    ) -> None:
        self.plan = plan
        self.sessions = sessions
        self.child_sessions = child_sessions or sessions
        self.ledger = ledger
        self.emitter = emitter
        self.settings = settings or EngineSettings()
        self.steering = steering or Steering()
        self.steering.ledger = ledger
        self.ids = count(1)
        self.tools = tools
        self.output = output
        self.cite = cite

    async def run(self, query: str, contexts: Sequence[Context], standing: Standing | None = None) -> Answer:
        """Answer ``query`` over ``contexts``; every outcome but cancellation is an `Answer`.

        ``standing`` is what a session has for it already.

        Raises:
            ContextError: a context could not be loaded into the kernel.
            asyncio.CancelledError: the task was cancelled; kernels and requests are gone by then.
        """
        if standing is not None:
            self.ids = standing.ids
        return await first_run(self, query, contexts, standing).answer()
