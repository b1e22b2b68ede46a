"""The root conversation of one run, and how large it is by the endpoint's own count.

Invariant: between two compactions ``messages`` only grows, so that every request begins with the one before
it and provider prefix caches hit. `compact` is the one thing that takes messages out; ``transcript`` keeps
them all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

from ..feedback import cut
from ..messages import Message, message_text
from ..usage import Usage

__all__ = ["Conversation"]

# Where no endpoint has counted yet. Text of code and figures has fewer characters a token than prose.
CHARS_PER_TOKEN = 3
IMAGE_TOKENS = 1_000
OPENING = 2
LEAST_CHARS = 400


class Conversation:
    """The messages of one run. ``tell`` is given each one as it is added."""

    def __init__(self, tell: Callable[[Message], None]) -> None:
        self.messages: list[Message] = []
        self.transcript: list[Message] = []
        self._tell = tell
        self._counted = 0
        self._tokens = 0
        self._floor = OPENING

    def add(self, message: Message) -> None:
        """Append ``message``."""
        self.messages.append(message)
        self.transcript.append(message)
        self._tell(message)

    def count(self, usage: Usage) -> None:
        """Take note of what the endpoint counted for the messages as they are now."""
        self._counted, self._tokens = len(self.messages), usage.input_tokens

    @property
    def tokens(self) -> int:
        """About how many tokens the next request has: those counted last, and a guess at what came since."""
        return self._tokens + sum(map(_estimate, islice(self.messages, self._counted, None)))

    @property
    def compactible(self) -> bool:
        """Whether there is a turn to take out, between the opening and the last turn."""
        return self._last_turn() > self._floor

    def _last_turn(self) -> int:
        """Return where the last turn begins."""
        replies = [n for n, each in enumerate(self.messages) if each["role"] == "assistant"]
        return replies[-1] if replies else 0

    def shortened(self) -> list[Message]:
        """Return the messages at half their length, for a model whose window they have outgrown.

        The opening stays; of the others, what is long loses its middle, and its images.
        """
        opening, rest = self.messages[:OPENING], self.messages[OPENING:]
        room = sum(len(message_text(each)) for each in self.messages) // 2
        room -= sum(len(message_text(each)) for each in opening)
        limit = max(LEAST_CHARS, room // max(1, len(rest)))
        shorter = (Message(role=each["role"], content=cut(message_text(each), limit)) for each in rest)
        return [*opening, *shorter]

    def compact(self, instead: Sequence[Message]) -> None:
        """Put ``instead`` in the place of all between the opening and the last turn."""
        self.messages[OPENING : self._last_turn()] = instead
        self._floor = OPENING + len(instead)
        self._counted = self._tokens = 0


def _estimate(message: Message) -> int:
    content = message["content"]
    images = 0 if isinstance(content, str) else sum(part["type"] == "image_url" for part in content)
    return len(message_text(message)) // CHARS_PER_TOKEN + images * IMAGE_TOKENS
