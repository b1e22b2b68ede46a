"""A run as a file of JSON lines: written as it happens, read back as events.

The file is linear in new text: a string of 200 characters or more is stored once, by hash, and a part
of it that is a slice of a context, or of a text stored before, as hash, start and end. A crash leaves a
valid prefix, since every line is flushed and refers only to lines before it. One line is one of::

    {"type": "trajectory", "version": 1, "package": "..."}                 the first line, and only there
    {"type": "text", "sha256": "...", "text": "..."}                       stored once, then referred to
    {"type": "source", "sha256": "...", "context": "context", "where": "['a.py']", "chars": 5000}
    {"v": 1, "run": ..., "seq": ..., "type": "call_started", ...}          an event

A source is a text of a context: named, not stored. An event is `rlm_kernel.events.to_json`'s, without
the fields that hold their default, and with a long string in the form ``{"$text": [segment, ...]}``,
whose segments join to the string. A segment is the characters themselves (few), ``{"t": sha256}``, or
``{"s": [sha256, start, end]}`` in characters. A key that starts with ``$`` in a value gets a second one.
Hashes are of the UTF-8 form (surrogatepass).

What a model wrote, code, and answers of usual length are never slices of a context, so they can be read
without it. `CallDelta` and `CellOutput` are left out, hence ``seq`` has gaps. ``prompt_sha256`` in a
``call_started`` line is `prompt_sha256` of the request as it was sent: what `ReplayModel` matches by.

No key gets in: what looks like one, or was handed in as ``secrets``, is replaced before a text is cut
into segments, hashed and written.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TextIO

from ..errors import InputError
from ..events import (
    CallDelta,
    CallFinished,
    CallStarted,
    CellOutput,
    CellStarted,
    Compacted,
    Event,
    MessageAdded,
    RunFinished,
    RunStarted,
    from_json,
    to_json,
)
from ..messages import Message
from .redact import Redactor
from .slices import MIN_CHARS, Segment, Slice, Slices, text_sha256

__all__ = ["JsonlWriter", "Trajectory", "prompt_sha256", "read"]

FILE_VERSION = 1

_ANSWER_CHARS = 65_536
# ASCII JSON writes each half of a surrogate pair as an escape, and reading makes one character of the
# two: a text that holds the halves as two characters is stored in two segments, cut between them.
_BETWEEN_HALVES = re.compile("(?<=[\ud800-\udbff])(?=[\udc00-\udfff])")


class JsonlWriter:
    """Writes the events of one tree to a file, or to an open text file, which stays the caller's.

    A reader for `rlm_kernel.events.Emitter`. A new file has mode 0600; one that exists is replaced.
    ``secrets`` are handed to `Redactor`.

    Raises:
        OSError: the file can't be created.
    """

    def __init__(self, target: str | os.PathLike[str] | TextIO, *, secrets: Iterable[str] = ()) -> None:
        self._owned = isinstance(target, str | os.PathLike)
        self._file = _create(target) if isinstance(target, str | os.PathLike) else target
        self._redacted = Redactor(secrets)
        self._slices = Slices()
        self._stored: set[str] = set()
        self._sources: set[str] = set()
        self._conversations: dict[str, hashlib._Hash] = {}
        self._requests: set[str] = set()
        self._begun = False

    def __call__(self, event: Event) -> None:
        """Write ``event``."""
        if isinstance(event, CallDelta | CellOutput):
            return
        if not self._begun:
            package = event.package if isinstance(event, RunStarted) else ""
            self._write({"type": "trajectory", "version": FILE_VERSION, "package": package})
            self._begun = True
        if isinstance(event, RunStarted):
            self._requests.discard(event.parent_call or "")
            if event.parent_run is None:
                # A child's context is cut from this one or was made in the REPL: no reader has it at hand.
                self._slices = Slices(event.sources)
        prompt = self._prompt_sha256(event)
        whole = self._longest_whole(event)
        defaults = {each.name for each in dataclasses.fields(event) if _is_default(event, each)}
        fields = {name: value for name, value in to_json(event).items() if name not in defaults}
        try:
            line = self._packed(fields, whole)
        except RecursionError:  # an answer's value is made by model-written code: nothing else nests so deep
            line = self._packed({**fields, "value": "[nested too deeply to be written]"}, whole)
        if prompt:
            line["prompt_sha256"] = prompt
        self._write(line)

    def close(self) -> None:
        """Close the file if this writer opened it."""
        if self._owned:
            self._file.close()

    def __enter__(self) -> JsonlWriter:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _write(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(line, separators=(",", ":"), default=repr) + "\n")
        self._file.flush()

    def _prompt_sha256(self, event: Event) -> str:
        if isinstance(event, MessageAdded):
            conversation = self._conversations.setdefault(event.run, hashlib.sha256())
            conversation.update(_canonical(event.message))
        elif isinstance(event, Compacted):
            conversation = self._conversations[event.run] = hashlib.sha256()
            for message in event.messages:
                conversation.update(_canonical(message))
        elif isinstance(event, RunFinished):
            self._conversations.pop(event.run, None)
        elif isinstance(event, CallStarted) and (event.messages or event.kind == "root"):
            self._requests.add(event.call)
            if event.messages:
                return prompt_sha256(event.messages)
            return self._conversations.get(event.run, hashlib.sha256()).hexdigest()
        return ""

    def _longest_whole(self, event: Event) -> int:
        """Return up to what length a text of ``event`` must not be stored as slices of a context."""
        if isinstance(event, CallFinished) and event.call in self._requests:
            self._requests.discard(event.call)
            return sys.maxsize
        if isinstance(event, CellStarted):
            return sys.maxsize
        if isinstance(event, MessageAdded) and event.message["role"] == "assistant":
            return sys.maxsize
        return _ANSWER_CHARS if isinstance(event, CallFinished | RunFinished) else 0

    def _packed(self, value: Any, whole: int) -> Any:
        if isinstance(value, str):
            return self._packed_text(value, whole)
        if isinstance(value, Mapping):
            return {self._packed_key(key): self._packed(each, whole) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [self._packed(each, whole) for each in value]
        return value

    def _packed_key(self, key: Any) -> Any:
        if not isinstance(key, str):
            return key
        key = self._redacted(key)
        return "$" + key if key.startswith("$") else key

    def _packed_text(self, text: str, whole: int) -> Any:
        text = self._redacted(text)
        parts = _storable(text)
        if len(text) < MIN_CHARS and len(parts) == 1:
            return text
        return {"$text": [segment for part in parts for segment in self._segments(part, whole)]}

    def _segments(self, text: str, whole: int) -> list[Any]:
        sha = text_sha256(text) if len(text) >= MIN_CHARS else ""
        if sha in self._stored:
            return [{"t": sha}]
        if len(text) <= whole:
            return [self._literal(text, sha)]
        return [self._segment(each) for each in self._slices.split(text)]

    def _segment(self, segment: Segment) -> Any:
        if isinstance(segment, str):
            return self._literal(segment, text_sha256(segment) if len(segment) >= MIN_CHARS else "")
        sha = segment.sha256
        if sha not in self._stored and sha not in self._sources:
            self._sources.add(sha)
            known = self._slices.known(sha)
            source = {"context": known.context, "where": known.where}
            fields = {name: self._redacted(value) for name, value in source.items()}
            self._write({"type": "source", "sha256": sha, **fields, "chars": len(known.text)})
        return {"s": [sha, segment.start, segment.end]}

    def _literal(self, text: str, sha: str) -> Any:
        if not sha:
            return text
        if sha not in self._stored:
            self._write({"type": "text", "sha256": sha, "text": text})
            self._stored.add(sha)
            self._slices.add(text, sha)
        return {"t": sha}


@dataclass(frozen=True, slots=True)
class Trajectory:
    """A trajectory read back.

    ``prompts`` holds each call's `prompt_sha256`. ``missing`` names the contexts whose slices could not be
    filled in: a text like ``[slice of context['a.py']: 0:5000]`` stands for each. ``truncated`` is true when
    the last line is cut, as after a crash; it is left out.
    """

    events: tuple[Event, ...]
    prompts: Mapping[str, str]
    missing: tuple[str, ...] = ()
    truncated: bool = False

    @classmethod
    def load(cls, path: str | os.PathLike[str], contexts: Any = ()) -> Trajectory:
        """Read a whole file. ``contexts`` and errors are those of `read`."""
        reader = _Reader(path, contexts)
        events = tuple(reader.events())
        return cls(events, reader.prompts, tuple(reader.missing), reader.truncated)


def read(path: str | os.PathLike[str], contexts: Any = ()) -> Iterator[Event]:
    """Yield the events of the file at ``path``, up to a last line that is cut.

    ``contexts`` are what the run was given: a text, a `rlm_kernel.events.Source`, or mappings and sequences
    of them. They are matched by hash, so others do no harm.

    Raises:
        InputError: the file can't be read, or is no trajectory of a version this package knows.
    """
    return _Reader(path, contexts).events()


def prompt_sha256(messages: Iterable[Message]) -> str:
    """Return the hash by which a request is known: SHA-256 of its messages, one line of JSON each."""
    digest = hashlib.sha256()
    for message in messages:
        digest.update(_canonical(message))
    return digest.hexdigest()


class _Reader:
    def __init__(self, path: str | os.PathLike[str], contexts: Any) -> None:
        self.prompts: dict[str, str] = {}
        self.missing: dict[str, None] = {}
        self.truncated = False
        self._path = os.fspath(path)
        self._contexts = contexts
        self._by_length: dict[int, list[str]] | None = None
        self._texts: dict[str, str] = {}
        self._names: dict[str, str] = {}

    def events(self) -> Iterator[Event]:
        try:
            # Splitting at "\n" alone: it is the only line end JSON can't hold inside a string.
            with open(self._path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
                number = 0
                for number, text in enumerate(file, 1):
                    event = self._event(number, text)
                    if event is not None:
                        yield event
                if number == 0:
                    raise self._error("it is empty")
        except OSError as error:
            raise InputError(
                f"can't read the trajectory {self._path}: {error.strerror}", hint="check the path"
            ) from error

    def _event(self, number: int, text: str) -> Event | None:
        try:
            line = json.loads(text)
        except ValueError as error:
            if number > 1 and not text.endswith("\n"):
                self.truncated = True
                return None
            raise self._error(f"line {number} is not JSON") from error
        try:
            return self._parsed(number, line)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise self._error(f"line {number}: {error!r}") from error

    def _parsed(self, number: int, line: dict[str, Any]) -> Event | None:
        kind = line.get("type")
        if number == 1 and (kind != "trajectory" or line.get("version") != FILE_VERSION):
            raise ValueError(f"first line of type {kind!r}, version {line.get('version')!r}")
        if kind == "trajectory":
            return None
        if kind == "text":
            self._texts[line["sha256"]] = line["text"]
            return None
        if kind == "source":
            self._find(line["sha256"], line["chars"])
            self._names[line["sha256"]] = f"{line['context']}{line['where']}"
            return None
        prompt = line.pop("prompt_sha256", None)
        event = from_json(self._unpacked(line))
        if prompt is not None and isinstance(event, CallStarted):
            self.prompts[event.call] = prompt
        return event

    def _find(self, sha: str, chars: int) -> None:
        """Hash the given texts of this length, the only ones that can be the source."""
        if self._by_length is None:
            self._by_length = {}
            for text in _texts(self._contexts):
                self._by_length.setdefault(len(text), []).append(text)
        for text in self._by_length.pop(chars, ()):
            self._texts.setdefault(text_sha256(text), text)

    def _unpacked(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._unpacked(each) for each in value]
        if not isinstance(value, dict):
            return value
        if "$text" in value:
            return "".join(self._segment(each) for each in value["$text"])
        return {key.removeprefix("$"): self._unpacked(each) for key, each in value.items()}

    def _segment(self, segment: Any) -> str:
        if isinstance(segment, str):
            return segment
        if "t" in segment:
            return self._texts[segment["t"]]
        slice_ = Slice(*segment["s"])
        text = self._texts.get(slice_.sha256)
        if text is not None:
            return text[slice_.start : slice_.end]
        name = self._names[slice_.sha256]
        self.missing[name] = None
        return f"[slice of {name}: {slice_.start}:{slice_.end}]"

    def _error(self, what: str) -> InputError:
        return InputError(
            f"{self._path} is no trajectory that this package can read: {what}",
            hint=f"trajectories are JSON lines of version {FILE_VERSION}, written by JsonlWriter",
        )


def _create(path: str | os.PathLike[str]) -> TextIO:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.chmod(path, 0o600)  # also where the file was there before
    return open(descriptor, "w", encoding="ascii", newline="\n")


def _canonical(message: Message) -> bytes:
    return json.dumps(message, sort_keys=True, separators=(",", ":")).encode("ascii") + b"\n"


def _is_default(event: Event, field: dataclasses.Field[Any]) -> bool:
    default = field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    value = getattr(event, field.name)
    return field.name != "type" and type(value) is type(default) and bool(value == default)


def _storable(text: str) -> list[str]:
    """Return ``text`` in parts that ASCII JSON keeps as they are."""
    if text.isascii():
        return [text]
    try:
        text.encode()
    except UnicodeEncodeError:
        return _BETWEEN_HALVES.split(text)
    return [text]


def _texts(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            if len(each) >= MIN_CHARS:
                yield each
        elif hasattr(each, "texts"):
            waiting.extend(text for _, text in each.texts())
        elif isinstance(each, Mapping):
            waiting.extend(each.values())
        elif isinstance(each, list | tuple):
            waiting.extend(each)
