"""What of a sandbox's output may reach a page or a terminal of the person in front of it.

Invariant: nothing that is published can run code, load anything from a network, or move a terminal's cursor:
texts keep line ends, tabs and colours; images are PNG or JPEG by their first bytes; JSON is JSON. HTML is
left out, unless the operator lets it be shown in a frame that has no scripts and no network.
"""

from __future__ import annotations

import base64
import binascii
import html
import json
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["bundle", "text"]

MAX_TEXT = 10_000_000
MAX_IMAGE = 8_000_000
# Escape sequences other than colours, and the control characters that terminals act upon.
_CONTROL = re.compile(r"\x1b(?!\[[0-9;]{0,40}m)|[\x00-\x07\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f]")
_IMAGES = {"image/png": b"\x89PNG\r\n\x1a\n", "image/jpeg": b"\xff\xd8\xff"}
_FRAME = (
    '<iframe sandbox="" referrerpolicy="no-referrer" style="width: 100%; height: 20em; border: 0" '
    'srcdoc="{}"></iframe>'
)
_POLICY = (
    '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
    "style-src 'unsafe-inline'; form-action 'none'\">"
)


def text(value: str) -> str:
    """Return a text without what a terminal would act upon."""
    return _CONTROL.sub("", value[:MAX_TEXT])


def bundle(data: Any, *, show_html: bool = False) -> dict[str, Any]:
    """Return what may be shown of a MIME bundle of a guest's; always with a text."""
    if not isinstance(data, Mapping):
        return {"text/plain": ""}
    plain = data.get("text/plain")
    clean: dict[str, Any] = {"text/plain": text(plain) if isinstance(plain, str) else ""}
    for mime, head in _IMAGES.items():
        if _is_image(data.get(mime), head):
            clean[mime] = data[mime]
    if "application/json" in data:
        value = data["application/json"]
        if isinstance(value, dict | list) and len(json.dumps(value)) <= MAX_TEXT:
            clean["application/json"] = value
    page = data.get("text/html")
    if show_html and isinstance(page, str) and len(page) <= MAX_TEXT:
        clean["text/html"] = _FRAME.format(html.escape(_POLICY + page, quote=True))
    left_out = [
        mime
        for mime in data
        if isinstance(mime, str) and mime not in clean and re.fullmatch(r"[\w.+/-]{3,60}", mime)
    ]
    if left_out and not clean["text/plain"]:
        clean["text/plain"] = f"[not shown: {', '.join(sorted(left_out)[:5])}]"
    return clean


def _is_image(value: Any, head: bytes) -> bool:
    if not isinstance(value, str) or len(value) > MAX_IMAGE:
        return False
    try:
        return base64.b64decode("".join(value.split()), validate=True).startswith(head)
    except (binascii.Error, ValueError):
        return False
