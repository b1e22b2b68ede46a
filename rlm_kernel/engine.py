"""Ask the root model, execute what it writes, show it what came out, until there is an answer.

The engine knows models, REPLs, the ledger and events; no HTTP, no Jupyter, no IPython. It starts no thread
and no process, so it also runs in a browser. Here is what all runs of one tree share; one of them is
`rlm_kernel.run.Run`, and a child is a run one level deeper, with a REPL of its own.
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
from .run import Run

__all__ = ["Engine", "EngineSettings"]


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How runs of one tree behave.

    ``max_depth`` is the first depth at which a child is a plain model call (the root's depth is 0);
    ``cell_timeout`` in seconds, None for no limit; ``output_chars`` what a cell's streams may show each;
    ``system_prompt`` replaces the package's own; ``backend`` is the REPL's name, for events.
    """

    max_depth: int = 1
    max_iterations: int = 20
    cell_timeout: float | None = 120.0
    output_chars: int = 20_000
    vision: bool = False
    system_prompt: str | None = None
    backend: str = "local"


class Engine:
    """What all runs of one tree share."""

    def __init__(
        self,
        plan: ModelPlan,
        sessions: SessionFactory,
        ledger: Ledger,
        emitter: Emitter,
        settings: EngineSettings | None = None,
    ) -> None:
        self.plan = plan
        self.sessions = sessions
        self.ledger = ledger
        self.emitter = emitter
        self.settings = settings or EngineSettings()
        self.ids = count(1)

    async def run(self, query: str, contexts: Sequence[Context]) -> Answer:
        """Answer ``query`` over ``contexts``. Every outcome but cancellation is an `Answer`.

        Raises:
            ContextError: a context could not be loaded into the kernel.
            asyncio.CancelledError: the task was cancelled; kernels and requests are gone by then.
        """
        return await Run(self, query, contexts, depth=0).answer()
