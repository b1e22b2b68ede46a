"""What the root model is told of its cells: one message a turn, bounded in size whatever they put out.

A cell's outputs stand there as text, in order, unfenced, so that no backtick in them can break the message;
figures follow as images where the model takes them. The kernel has cut each stream already; here the sum is
bounded, and what a hostile kernel sends is named instead of sent on.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from .events import CellStatus
from .guest.image import Image
from .messages import ImagePart, Part, TextPart
from .outputs import Output

__all__ = ["CellFeedback", "cells_message", "cut"]

TOTAL_CHARS = 60_000
TRACEBACK_CHARS = 4_000
MAX_IMAGES = 8
MAX_IMAGE_BYTES = 5_000_000
MAX_NAMES = 30


@dataclass(frozen=True, slots=True)
class CellFeedback:
    """How a cell ended, for the model. ``block`` numbers the blocks of one reply from 1.

    ``lost`` and ``variables`` are those of `rlm_kernel.repl.base.CellResult`.
    """

    block: int
    status: CellStatus
    outputs: tuple[Output, ...] = ()
    seconds: float = 0.0
    lost: str = ""
    variables: tuple[str, ...] = ()


def cells_message(
    cells: Sequence[CellFeedback],
    notes: Sequence[str] = (),
    status: str = "",
    *,
    blocks: int | None = None,
    vision: bool = False,
    limit: int = TOTAL_CHARS,
) -> str | list[Part]:
    """Return the message after a turn: what the cells put out, variables, notes, and ``status`` last.

    ``blocks`` is how many the reply had; those behind the last cell did not run. ``limit`` bounds the cells'
    text, in characters, each cell getting an equal share. The result is in parts if an image is among it,
    which needs ``vision``.
    """
    blocks = len(cells) if blocks is None else blocks
    gallery = _Gallery(vision=vision)
    paragraphs = []
    for cell in cells:
        title = "REPL output:" if blocks == 1 else f"REPL output (block {cell.block}):"
        paragraphs.append(f"{title}\n{cut(_cell_text(cell, gallery), limit // len(cells))}")
    if cells and len(cells) < blocks:
        paragraphs.append(_not_run(cells[-1].block, blocks))
    if cells and cells[-1].variables:
        paragraphs.append(f"Variables: {_names(cells[-1].variables)}")
    text = "\n\n".join([*paragraphs, *notes, *([status] if status else [])])
    return [TextPart(type="text", text=text), *gallery.parts] if gallery.parts else text


def cut(text: str, limit: int) -> str:
    """Return ``text`` with its middle left out and counted, if it has more than ``limit`` characters.

    Of a cut text, ``limit`` characters stay, half of them from each end.
    """
    dropped = len(text) - limit
    if dropped <= 0:
        return text
    head = limit // 2
    return text[:head] + _left_out(dropped) + text[head + dropped :]


def _left_out(count: int) -> str:
    return f"\n... [{count:,} characters left out] ...\n"


def _not_run(last: int, blocks: int) -> str:
    skipped = ", ".join(str(number) for number in range(last + 1, blocks + 1))
    which = f"Block {skipped}" if blocks == last + 1 else f"Blocks {skipped}"
    return f"{which} did not run, because block {last} did not end well."


def _names(variables: Sequence[str]) -> str:
    names = ", ".join(variables[:MAX_NAMES])
    more = len(variables) - MAX_NAMES
    return f"{names} and {more} more" if more > 0 else names


def _cell_text(cell: CellFeedback, gallery: _Gallery) -> str:
    pieces = [_output_text(output, gallery).strip("\n") for output in cell.outputs]
    kept = "" if cell.lost else "; your variables are kept"
    ending = {
        "ok": "",
        "error": "[the block failed: fix it and go on]",
        "interrupted": "[the block was interrupted]",
        "timed_out": f"[the block was stopped after {cell.seconds:.0f} s, the time limit{kept}]",
        "died": "[the kernel died in this block]",
        "cancelled": "[the block was cancelled]",
    }[cell.status]
    text = "\n".join(piece for piece in [*pieces, ending, cell.lost] if piece)
    return text or "(no output)"


def _output_text(output: Output, gallery: _Gallery) -> str:
    dropped = _left_out(output.dropped) if output.dropped else ""
    if output.kind == "stdout":
        return _as_on_a_terminal(output.text) + dropped
    if output.kind == "stderr":
        return "[stderr]\n" + _as_on_a_terminal(output.text).strip("\n") + dropped
    if output.kind == "error":
        text = _as_on_a_terminal(output.text) or f"{output.name}: {output.value}"
        # The end of a traceback tells what happened, so there the head is what can go.
        over = len(text) - TRACEBACK_CHARS
        return (_left_out(over) + text[over:] if over > 0 else text) + dropped
    figures = [gallery.take(mime, data) for mime, data in output.data.items() if mime.startswith("image/")]
    text = _as_text(output)
    return "\n".join(piece for piece in [text + dropped, *figures] if piece)


_OPAQUE = re.compile(r"<[\w.]+ object(?: at 0x[0-9a-fA-F]+)?>")


def _as_text(output: Output) -> str:
    """Return the form of a displayed value that tells a reader of text most."""
    for mime in ("text/markdown", "text/latex"):
        if mime in output.data:
            return output.data[mime]
    if output.text and not _OPAQUE.fullmatch(output.text.strip()):
        return output.text
    if "application/json" in output.data:
        return _compact(output.data["application/json"])
    return output.data.get("text/html", output.text)


def _compact(text: str) -> str:
    try:
        return json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":"))
    except (ValueError, RecursionError):
        return text


_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?)")


def _as_on_a_terminal(text: str) -> str:
    """Return ``text`` without colours, and of each progress bar the last state only."""
    if "\x1b" in text:
        text = _ESCAPES.sub("", text)
    if "\r" in text:
        text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    return text


class _Gallery:
    """The images of one message: those that can be shown, in order, and a line of text for each."""

    def __init__(self, *, vision: bool) -> None:
        self._vision = vision
        self.parts: list[Part] = []

    def take(self, mime: str, data: str) -> str:
        """Keep an image if it can be shown; return what stands in the text for it."""
        image = _image(mime, data)
        if image is None:
            return f"[{mime}, {_size(len(data))}: not shown, this kind can't be]"
        pixels = "" if image.width is None else f"{image.width}x{image.height}, "
        what = f"{mime}, {pixels}{_size(len(image.data))}"
        if not self._vision:
            return f"[{what}: not shown, this model reads text only]"
        if len(self.parts) == MAX_IMAGES:
            return f"[{what}: not shown, a message holds {MAX_IMAGES} images]"
        encoded = base64.b64encode(image.data).decode()
        self.parts.append(ImagePart(type="image_url", image_url={"url": f"data:{mime};base64,{encoded}"}))
        return f"[image {len(self.parts)}: {what}]"


def _image(mime: str, data: str) -> Image | None:
    """Return the image in ``data``, base64 as Jupyter has it, or None where an endpoint would refuse it."""
    if len(data) > MAX_IMAGE_BYTES * 4 // 3:
        return None
    try:
        return Image(base64.b64decode("".join(data.split()), validate=True), mime)
    except (ValueError, binascii.Error):
        return None


def _size(count: int) -> str:
    return f"{count:,} B" if count < 10_000 else f"{count // 1000:,} KB"
