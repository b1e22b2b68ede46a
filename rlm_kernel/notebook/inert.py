"""What may stand in a document that others open: texts and data of a run to be read, none that act.

A document is opened by viewers of all kinds; some show an image from anywhere, run a script, or follow a
`javascript:` link. So Markdown that holds any of these is not shown as Markdown, and of rich output a
notebook keeps what is known to be a picture or data, unless the code had its user's rights anyway.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping

from ..guest.image import image_mime

__all__ = ["TRUSTED", "acts", "is_image", "line", "shown_data"]

TRUSTED = frozenset({"local", "shell"})
"""The backends whose code can do what its user can: its HTML adds nothing to that."""

_IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")
_DATA = ("application/json", *_IMAGES)
_FENCE = re.compile(r"^ {0,3}(?:`{3,}|~{3,})", re.MULTILINE)
# What Markdown, or what viewers make of it, does more with than to show it as text. Links are followed by
# hand only, and to web pages only. The commands are MathJax's, and those of TeX that read and write.
_ACTS = re.compile(
    r"<[a-z/!?]"
    r"|!\["
    r"|\](?:\(|:)\s*(?!https?://|mailto:|\#)"
    r"|(?:```|~~~)\s*(?:mermaid|\{)"
    r"|\\(?:href|url|unicode|require|class|cssid|style|html|includegraphics|input|include|write|immediate"
    r"|openin|openout|catcode|csname|def|let)",
    re.IGNORECASE,
)


def acts(text: str) -> bool:
    """Whether ``text`` as Markdown might do more than be read, or swallow what follows it."""
    return _ACTS.search(text) is not None or len(_FENCE.findall(text)) % 2 == 1


def line(text: str) -> str:
    """Return ``text`` as one line of Markdown that can only be read.

    It stays as it is, letter by letter, so that a key in it can still be found and taken out.
    """
    text = " ".join(text.split())
    if not acts(text):
        return text
    ticks = "`" * (1 + max((len(each) for each in re.findall("`+", text)), default=0))
    return f"{ticks} {text} {ticks}"


def is_image(mime: str, text: str) -> bool:
    """Whether ``text`` is base64 of a picture of this type, by its first bytes."""
    if mime not in _IMAGES:
        return False
    try:
        return image_mime(base64.b64decode("".join(text.split()), validate=True)) == mime
    except (ValueError, binascii.Error):
        return False


def shown_data(data: Mapping[str, str], repl: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the forms of an output that a notebook keeps, and the types of the others.

    HTML, scripts, SVG, Markdown and TeX are kept of a run on one of the backends in `TRUSTED`.
    """
    kept = {
        mime: text
        for mime, text in data.items()
        if (is_image(mime, text) if mime in _IMAGES else mime in _DATA or repl in TRUSTED)
    }
    return kept, tuple(sorted(data.keys() - kept.keys()))
