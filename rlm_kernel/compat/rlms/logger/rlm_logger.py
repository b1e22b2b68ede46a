"""The log of `rlms`: one JSON object a line, the first about the run, then one an iteration.

The fields are those that its log viewer reads. An iteration holds what was sent and what came of it, not the
context: that grows with the conversation, where the original writes the whole context again each time.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from ....trace.redact import Redactor
from ..core.types import RLMIteration, RLMMetadata

__all__ = ["RLMLogger"]


class RLMLogger:
    """Keeps the iterations of the last completion, and writes those of all to ``log_dir`` if there is one."""

    def __init__(self, log_dir: str | None = None, file_name: str = "rlm") -> None:
        self.log_dir = log_dir
        self.log_file_path: str | None = None
        if log_dir is not None:
            folder = Path(log_dir)
            folder.mkdir(parents=True, exist_ok=True)
            stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
            self.log_file_path = str(folder / f"{file_name}_{stamp}_{uuid.uuid4().hex[:8]}.jsonl")
        self._metadata: dict[str, Any] | None = None
        self._iterations: list[dict[str, Any]] = []
        self._redacted = Redactor()

    def hide(self, secrets: Iterable[str]) -> None:
        """Leave these texts out of all that is logged from now on."""
        self._redacted = Redactor(secrets)

    def log_metadata(self, metadata: RLMMetadata) -> None:
        """Note how runs are set up; only the first call counts."""
        if self._metadata is None:
            self._metadata = self._clean(metadata.to_dict())
            self._write({"type": "metadata", "timestamp": _now(), **self._metadata})

    def log(self, iteration: RLMIteration) -> None:
        """Note one iteration."""
        entry = {
            "type": "iteration",
            "iteration": len(self._iterations) + 1,
            "timestamp": _now(),
            **self._clean(iteration.to_dict()),
        }
        self._iterations.append(entry)
        self._write(entry)

    def clear_iterations(self) -> None:
        """Begin another completion."""
        self._iterations = []

    def get_trajectory(self) -> dict[str, Any] | None:
        """Return ``run_metadata`` and ``iterations`` of the last completion, None before any."""
        if self._metadata is None:
            return None
        return {"run_metadata": self._metadata, "iterations": list(self._iterations)}

    @property
    def iteration_count(self) -> int:
        """How many iterations the last completion has had."""
        return len(self._iterations)

    def _clean(self, entry: dict[str, Any]) -> dict[str, Any]:
        cleaned: dict[str, Any] = _each_text(entry, self._redacted)
        return cleaned

    def _write(self, entry: dict[str, Any]) -> None:
        if self.log_file_path is not None:
            with Path(self.log_file_path).open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")


def _each_text(value: Any, change: Redactor) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_each_text(each, change) for each in value]
    if isinstance(value, dict):
        return {name: _each_text(each, change) for name, each in value.items()}
    return value


def _now() -> str:
    return datetime.now().isoformat()
