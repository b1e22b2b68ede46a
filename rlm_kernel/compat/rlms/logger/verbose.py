"""What ``verbose=True`` prints: this package's own view of a run, in place of the panels of `rlms`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ....events import Event

if TYPE_CHECKING:
    from ....trace.console import ConsoleReader

__all__ = ["VerbosePrinter"]


class VerbosePrinter:
    """Shows runs on the console; a reader of events, for ``RLM(readers=[...])`` of this package too."""

    def __init__(self, enabled: bool = True) -> None:  # noqa: FBT001, FBT002  the original's
        self.enabled = enabled
        self._console: ConsoleReader | None = None

    def __call__(self, event: Event) -> None:
        """Show ``event``."""
        if not self.enabled:
            return
        if self._console is None:
            from ....trace.console import ConsoleReader  # noqa: PLC0415  on use

            self._console = ConsoleReader(verbose=True)
        self._console(event)

    def close(self) -> None:
        """Give the terminal back."""
        console, self._console = self._console, None
        if console is not None:
            console.close()
