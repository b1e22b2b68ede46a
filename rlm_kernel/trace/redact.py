"""Keys out of text: what stands between a run and everything that is kept of it.

Two rules, each replacing what it finds by `REDACTED`: the exact secrets handed in, and what has the
shape of a well-known kind of key. The second is a net for keys that nobody named, such as one pasted
into a context; it can't know every shape.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["REDACTED", "Redactor"]

REDACTED = "[redacted]"

_SHORTEST_SECRET = 8  # local servers take keys like "x" or "none": those are words, not secrets
# What a kind of key looks like, behind a substring that is quick to look for and rarely there.
_SHAPES = tuple(
    (hint, re.compile(shape))
    for hint, shape in (
        ("sk-", r"\bsk-[A-Za-z0-9_-]{16,}"),
        ("earer ", r"(?<=[Bb]earer )[A-Za-z0-9._~+/-]{20,}=*"),
        ("AIza", r"\bAIza[A-Za-z0-9_-]{35}"),
        ("hf_", r"\bhf_[A-Za-z0-9]{30,}"),
        ("gh", r"\bgh[oprsu]_[A-Za-z0-9]{36,}"),
    )
)


class Redactor:
    """Replaces secrets in texts. Exact ones of fewer than 8 characters are ignored."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        # The longest first: one secret may hold another.
        self._secrets = sorted({each for each in secrets if len(each) >= _SHORTEST_SECRET}, key=len)[::-1]

    def __call__(self, text: str) -> str:
        """Return ``text`` without secrets."""
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, REDACTED)
        for hint, shape in _SHAPES:
            if hint in text:
                text = shape.sub(REDACTED, text)
        return text
