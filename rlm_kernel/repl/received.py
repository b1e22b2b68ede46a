"""A kernel's messages as outputs: typed and bounded, whoever wrote them.

The guest cuts what a cell puts out, but code in a cell can send messages past it. Whatever comes, an `Output`
made here has texts where texts belong, a few well-formed types of data, and no more of either than `within`
lets through.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..outputs import Output

__all__ = ["output_of", "within"]

MAX_TYPES = 20
MAX_NAME = 500
# Base64 of the largest image that a model is shown, and the largest that guests let through.
MAX_FORM = 8_000_000
# What an output costs besides its text: else those without any would be free.
_EACH = 100
_TYPE = re.compile(r"[\w.+-]{1,60}/[\w.+-]{1,100}", re.ASCII)
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07]*\x07")


def output_of(type_: str, content: Mapping[str, Any]) -> Output | None:
    """Return what a message of iopub puts out, or None for one that puts nothing out.

    Raises:
        KeyError, TypeError, ValueError: it is malformed.
    """
    if type_ == "stream":
        return Output("stderr" if content["name"] == "stderr" else "stdout", _text(content["text"]))
    if type_ in ("execute_result", "display_data"):
        data = {mime: _form(value) for mime, value in content["data"].items() if _TYPE.fullmatch(mime)}
        text = data.pop("text/plain", "")
        few = dict(list(data.items())[:MAX_TYPES])
        return Output("result" if type_ == "execute_result" else "display", text, few)
    if type_ == "error":
        trace = _ANSI.sub("", "\n".join(content["traceback"]))
        return Output("error", trace, name=_text(content["ename"])[:MAX_NAME], value=_text(content["evalue"]))
    return None


def within(output: Output, room: int) -> tuple[Output, int]:
    """Return ``output`` cut to ``room`` characters, and how many it takes of them.

    Data count a hundredth, as images they are mostly; each form that is larger than `MAX_FORM` is left out.
    """
    data = {mime: value for mime, value in output.data.items() if len(value) <= MAX_FORM}
    size = len(output.text) + len(output.value) + sum(map(len, data.values())) // 100
    if output.kind not in ("stdout", "stderr"):
        size += _EACH
    left_out = max(0, len(output.text) - room)
    if left_out or len(data) < len(output.data) or len(output.value) > room:
        output = replace(
            output,
            text=output.text[:room],
            value=output.value[:room],
            data=data,
            dropped=output.dropped + left_out,
        )
    return output, max(1, size)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a {type(value).__name__} in the place of a text")
    return value


def _form(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return "".join(value)
    try:
        return json.dumps(value)
    except RecursionError:
        raise ValueError("data that are nested too deeply") from None
