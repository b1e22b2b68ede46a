"""The records of `rlms`: results, usage, and what its logger writes.

Fields, names and JSON forms are those of `rlms` 0.1.3, and its log viewer reads them. What is added stands at
the end and has a default: ``total_cached_tokens``, ``prompt_tokens`` and ``completion_tokens``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = [
    "ClientBackend",
    "CodeBlock",
    "EnvironmentType",
    "ModelUsageSummary",
    "REPLResult",
    "RLMChatCompletion",
    "RLMIteration",
    "RLMMetadata",
    "UsageSummary",
]

ClientBackend = Literal[
    "openai", "portkey", "openrouter", "vercel", "vllm", "anthropic", "azure_openai", "gemini"
]
EnvironmentType = Literal["local", "ipython", "docker", "modal", "prime", "daytona", "e2b"]


@dataclass
class ModelUsageSummary:
    """The requests made to one model. ``total_cost`` is in USD, None if a price is not known."""

    total_calls: int
    total_input_tokens: int
    total_output_tokens: int
    total_cost: float | None = None
    total_cached_tokens: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        plain: dict[str, Any] = {
            "total_calls": self.total_calls,
            "total_input_tokens": self.total_input_tokens,
            "total_output_tokens": self.total_output_tokens,
            "total_cached_tokens": self.total_cached_tokens,
        }
        return plain if self.total_cost is None else {**plain, "total_cost": self.total_cost}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelUsageSummary:
        """Return what `to_dict` made ``data`` of."""
        return cls(
            data["total_calls"],
            data["total_input_tokens"],
            data["total_output_tokens"],
            data.get("total_cost"),
            data.get("total_cached_tokens", 0),
        )


@dataclass
class UsageSummary:
    """The requests of a whole tree, children included, by the name of the model."""

    model_usage_summaries: dict[str, ModelUsageSummary]

    @property
    def total_cost(self) -> float | None:
        """What all of it cost in USD; None if nothing was asked, or a price is not known."""
        costs = [each.total_cost for each in self.model_usage_summaries.values()]
        known = [cost for cost in costs if cost is not None]
        return sum(known) if known and len(known) == len(costs) else None

    @property
    def total_input_tokens(self) -> int:
        """Input tokens, cached ones included."""
        return sum(each.total_input_tokens for each in self.model_usage_summaries.values())

    @property
    def total_output_tokens(self) -> int:
        """Output tokens."""
        return sum(each.total_output_tokens for each in self.model_usage_summaries.values())

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        plain: dict[str, Any] = {
            "model_usage_summaries": {
                name: each.to_dict() for name, each in self.model_usage_summaries.items()
            }
        }
        return plain if self.total_cost is None else {**plain, "total_cost": self.total_cost}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> UsageSummary:
        """Return what `to_dict` made ``data`` of."""
        found = data.get("model_usage_summaries", {})
        return cls({name: ModelUsageSummary.from_dict(each) for name, each in found.items()})


@dataclass
class RLMChatCompletion:
    """The outcome of a run, or of one call in it.

    ``error`` is None where ``response`` is an answer. Out of turns, ``response`` is the best there was, and
    ``error`` says so.
    """

    root_model: str
    prompt: Any
    response: str
    usage_summary: UsageSummary
    execution_time: float
    metadata: dict[str, Any] | None = None
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values; a prompt that is none becomes text."""
        plain: dict[str, Any] = {
            "root_model": self.root_model,
            "prompt": _plain(self.prompt),
            "response": self.response,
            "usage_summary": self.usage_summary.to_dict(),
            "execution_time": self.execution_time,
            "prompt_tokens": self.usage_summary.total_input_tokens,
            "completion_tokens": self.usage_summary.total_output_tokens,
        }
        if self.metadata is not None:
            plain["metadata"] = self.metadata
        if self.error is not None:
            plain["error"] = self.error
        return plain

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RLMChatCompletion:
        """Return what `to_dict` made ``data`` of."""
        return cls(
            data["root_model"],
            data["prompt"],
            data["response"],
            UsageSummary.from_dict(data["usage_summary"]),
            data["execution_time"],
            data.get("metadata"),
            data.get("error"),
        )


@dataclass
class REPLResult:
    """How a cell ended. ``locals`` are the variables that cells made, those too large for JSON as text."""

    stdout: str
    stderr: str
    locals: dict[str, Any]
    execution_time: float | None = None
    rlm_calls: list[RLMChatCompletion] = field(default_factory=list)
    final_answer: str | None = None

    @property
    def llm_calls(self) -> list[RLMChatCompletion]:
        """``rlm_calls`` under the name that the original declares."""
        return self.rlm_calls

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "stdout": self.stdout,
            "stderr": self.stderr,
            "locals": {name: _plain(value) for name, value in self.locals.items()},
            "execution_time": self.execution_time,
            "rlm_calls": [call.to_dict() for call in self.rlm_calls],
            "final_answer": self.final_answer,
        }


@dataclass
class CodeBlock:
    """One block of code that a reply held, and how it ended."""

    code: str
    result: REPLResult

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {"code": self.code, "result": self.result.to_dict()}


@dataclass
class RLMIteration:
    """One turn of a root model: what it was sent, what it wrote, what came of it."""

    prompt: Any
    response: str
    code_blocks: list[CodeBlock]
    final_answer: str | None = None
    iteration_time: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "prompt": self.prompt,
            "response": self.response,
            "code_blocks": [block.to_dict() for block in self.code_blocks],
            "final_answer": self.final_answer,
            "iteration_time": self.iteration_time,
        }


@dataclass
class RLMMetadata:
    """How a run was set up: the first line of a log. Keys have been left out."""

    root_model: str
    max_depth: int
    max_iterations: int
    backend: str
    backend_kwargs: dict[str, Any]
    environment_type: str
    environment_kwargs: dict[str, Any]
    other_backends: list[str] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "root_model": self.root_model,
            "max_depth": self.max_depth,
            "max_iterations": self.max_iterations,
            "backend": self.backend,
            "backend_kwargs": _plain(self.backend_kwargs),
            "environment_type": self.environment_type,
            "environment_kwargs": _plain(self.environment_kwargs),
            "other_backends": self.other_backends,
        }


def _plain(value: Any) -> Any:
    """Return ``value`` as JSON values, what is none of them as text."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    return repr(value)
