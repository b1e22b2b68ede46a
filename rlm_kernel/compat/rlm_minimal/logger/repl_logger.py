"""``REPLEnvLogger`` of rlm-minimal: executed code beside its output, as a notebook shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["CodeExecution", "REPLEnvLogger"]


@dataclass
class CodeExecution:
    """One executed cell."""

    code: str
    stdout: str
    stderr: str
    execution_number: int
    execution_time: float | None = None


class REPLEnvLogger:
    """Keeps executed cells and prints them on demand, each text up to ``max_output_length`` characters."""

    def __init__(self, max_output_length: int = 2000, enabled: bool = True) -> None:  # noqa: FBT001, FBT002
        self.max_output_length = max_output_length
        self.enabled = enabled
        self.executions: list[CodeExecution] = []

    @property
    def execution_count(self) -> int:
        """How many cells were noted."""
        return len(self.executions)

    def log_execution(
        self, code: str, stdout: str, stderr: str = "", execution_time: float | None = None
    ) -> None:
        """Note one cell, such as those of `REPLEnv.code_execution`."""
        number = len(self.executions) + 1
        self.executions.append(CodeExecution(code, stdout, stderr, number, execution_time))

    def display_last(self) -> None:
        """Print the cell noted last."""
        self._display(self.executions[-1:])

    def display_all(self) -> None:
        """Print all cells."""
        self._display(self.executions)

    def clear(self) -> None:
        """Forget all cells."""
        self.executions.clear()

    def _display(self, executions: list[CodeExecution]) -> None:
        if not self.enabled:
            return
        from rich.console import Console  # noqa: PLC0415  on use
        from rich.panel import Panel  # noqa: PLC0415
        from rich.syntax import Syntax  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        console = Console()
        for each in executions:
            code: Any = Syntax(self._cut(each.code), "python")
            console.print(Panel(code, title=f"In [{each.execution_number}]", border_style="blue"))
            failed = bool(each.stderr)
            title = f"{'Error' if failed else 'Out'} [{each.execution_number}]"
            if each.execution_time is not None:
                title += f", {each.execution_time:.2f} s"
            text = Text(self._cut(each.stderr if failed else each.stdout))
            console.print(Panel(text, title=title, border_style="red" if failed else "green"))

    def _cut(self, text: str) -> str:
        if len(text) <= self.max_output_length:
            return text
        half = self.max_output_length // 2
        left_out = len(text) - 2 * half
        return f"{text[:half]}\n[{left_out:,} characters left out]\n{text[len(text) - half :]}"
