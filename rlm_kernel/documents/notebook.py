"""Jupyter notebooks by nbformat: every cell and its text outputs, images apart.

Each part starts with a line of its own: ``# %% cell 3, code``, ``# %% cell 3, output``. Where an image stood
there is ``[image cell-3-1.png]``, and the image has that name.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from ..guest.image import Image
from .base import Allowance, Document, Place, Places, RefusedError

__all__ = ["read_notebook"]

_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_IMAGES = {"image/png": "png", "image/jpeg": "jpg", "image/gif": "gif", "image/webp": "webp"}
_TEXTS = ("text/markdown", "text/plain", "text/latex", "text/html", "application/json")


def read_notebook(data: bytes, allowance: Allowance) -> Document:
    """Read a notebook of any format version.

    Raises:
        RefusedError: no notebook, without cells, or over a limit.
    """
    cells = _cells(data)
    if not cells:
        raise RefusedError("has no cells")
    writer = _Writer(allowance)
    for number, cell in enumerate(cells, 1):
        if isinstance(cell, Mapping):
            writer.cell(number, cell)
    return Document("notebook", "".join(writer.parts), Places(tuple(writer.places)), images=writer.images)


def _cells(data: bytes) -> list[Any]:
    """Return the cells in the newest form. Nothing is validated: what is odd is passed over instead."""
    reading, convert = import_module("nbformat.reader"), import_module("nbformat").convert
    try:
        notebook = convert(reading.reads(data.decode("utf-8-sig")), 4)
        cells = notebook["cells"]
    except RecursionError:
        raise RefusedError("nested too deeply") from None
    except Exception as error:  # an edge: nbformat raises what its input makes it stumble over
        text = " ".join(str(error).split())[:100] or type(error).__name__
        raise RefusedError(f"no notebook: {text}") from error
    if not isinstance(cells, list):
        raise RefusedError("no notebook: its cells are no list")
    return cells


class _Writer:
    """Gathers the text of cells."""

    def __init__(self, allowance: Allowance) -> None:
        self.parts: list[str] = []
        self.places: list[Place] = []
        self.images: dict[str, Image] = {}
        self._allowance = allowance
        self._size = 0

    def cell(self, number: int, cell: Mapping[str, Any]) -> None:
        """Add a cell, its attachments and its outputs."""
        self.places.append(Place(self._size, "cell", number))
        kind = str(cell.get("cell_type", "raw"))[:20]
        attachments = cell.get("attachments")
        pictures = list(attachments.values()) if isinstance(attachments, Mapping) else []
        images = [line for each in pictures for line in self._pictures(number, each)]
        self._add(f"# %% cell {number}, {kind}", _text(cell.get("source")), *images)
        outputs = cell.get("outputs")
        shown = [
            text
            for output in (outputs if isinstance(outputs, list) else [])
            if isinstance(output, Mapping)
            for text in self._output(number, output)
        ]
        if shown:
            self._add(f"# %% cell {number}, output", *shown)

    def _output(self, number: int, output: Mapping[str, Any]) -> Iterator[str]:
        kind = output.get("output_type")
        if kind == "stream":
            yield _text(output.get("text"))
        elif kind == "error":
            trace = output.get("traceback")
            lines = [_text(line) for line in trace] if isinstance(trace, list) else []
            yield "\n".join(lines) or f"{_text(output.get('ename'))}: {_text(output.get('evalue'))}"
        elif isinstance(data := output.get("data"), Mapping):
            yield from self._pictures(number, data)
            mime = next((each for each in _TEXTS if each in data), None)
            if mime == "application/json":
                yield json.dumps(data[mime], ensure_ascii=False)
            elif mime is not None:
                yield _text(data[mime])

    def _pictures(self, number: int, data: Any) -> Iterator[str]:
        if not isinstance(data, Mapping):
            return
        for mime, ending in _IMAGES.items():
            if isinstance(encoded := data.get(mime), str | list):
                count = sum(name.startswith(f"cell-{number}-") for name in self.images) + 1
                name = f"cell-{number}-{count}.{ending}"
                try:
                    self.images[name] = Image(base64.b64decode(_text(encoded)))
                except (binascii.Error, ValueError):
                    yield f"[image {name}: damaged]"
                else:
                    yield f"[image {name}]"

    def _add(self, *texts: str) -> None:
        for text in texts:
            if text:
                text = text if text.endswith("\n") else text + "\n"  # noqa: PLW2901  a line of its own
                self.parts.append(text)
                self._size += len(text)
        self._allowance.check(self._size)


def _text(value: Any) -> str:
    """Join what the format stores as one text or as its lines."""
    if isinstance(value, list):
        value = "".join(each for each in value if isinstance(each, str))
    return _ANSI.sub("", value) if isinstance(value, str) else ""
