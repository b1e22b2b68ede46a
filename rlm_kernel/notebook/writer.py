"""A finished run as an ordinary notebook, which runs again: nbformat 4.5.

One code cell stands for each block that was executed, with the outputs it had; the model's words are
Markdown; child runs, and cells that did not come to an end by themselves, are shown and not executed. What
is ours in the metadata stands under the key ``rlm``, and each cell has a tag that says what it is.
"""

from __future__ import annotations

import base64
import json
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..dialect import parse
from ..outputs import Output
from ..trace.redact import Redactor
from . import recording
from .inert import TRUSTED, line, shown_data
from .markdown import calls_of, child_run, fenced, heading, headline, outcome, shown_cell, words
from .transcript import CellPart, NotePart, RunPart, TurnPart

__all__ = ["write_notebook"]

_SETUP = """\
# Restores the context, and answers the calls of the cells below from the recording: no model is asked.
from rlm_kernel.notebook.replaying import replay

_rlm_replay = replay({arguments})"""
_CHECK = "_rlm_replay.check()"
_RIGHTS = """\
*The code below was executed in a kernel of another kind ({repl}). Run again here, it has the rights of this
notebook's kernel: read it first.*"""


def write_notebook(
    run: RunPart,
    target: Path,
    *,
    prompts: Mapping[str, str] | None = None,
    contexts: Any = (),
    secrets: Iterable[str] = (),
) -> tuple[Path, ...]:
    """Write ``run`` as a notebook; return all files that were written.

    ``prompts`` are hashes of calls, `Trajectory.prompts`; ``contexts`` values that may be the run's, by name
    or in a row; ``secrets`` are taken out of everything, as is what looks like a key.
    """
    redact = Redactor(secrets)
    recorded = recording.make(run, target, prompts=prompts or {}, contexts=contexts, redact=redact)
    files = [target, *(target.parent / each.file for each in recorded.contexts if each.file)]
    packed = recorded.pack()
    if len(packed) <= recording.EMBED_BYTES:
        text = "\n".join(textwrap.wrap(base64.b64encode(packed).decode("ascii"), 100))
        arguments = f'"""\n{text}\n"""'
    else:
        beside = target.parent / f"{target.stem}.rlm-recording"
        recording.write_private(beside, packed)
        files.append(beside)
        arguments = f"path={beside.name!r}"
    notebook = {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": _metadata(run, redact),
        "cells": list(_cells(run, _SETUP.format(arguments=arguments), redact)),
    }
    text = json.dumps(notebook, indent=1, ensure_ascii=True, sort_keys=True)
    recording.write_private(target, text.encode("ascii") + b"\n")
    return tuple(files)


def _metadata(run: RunPart, redact: Callable[[str], str]) -> dict[str, Any]:
    started, finished = run.started, run.finished
    about: dict[str, Any] = {
        "version": 1,
        "run": started.run,
        "package": started.package,
        "repl": started.repl,
        "model": started.model,
        "sub_model": started.sub_model,
    }
    if finished is not None:
        usage = finished.usage
        about |= {
            "status": finished.status,
            "calls": finished.calls,
            "seconds": round(finished.seconds, 3),
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "cost_usd": None if usage.cost_usd is None else str(usage.cost_usd),
        }
    return {
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "rlm": {name: redact(each) if isinstance(each, str) else each for name, each in about.items()},
    }


def _cells(run: RunPart, setup: str, redact: Callable[[str], str]) -> Iterator[dict[str, Any]]:
    yield _words("rlm-question", "question", redact(headline(run)))
    described = "\n\n".join(fenced(info.description) for info in run.started.contexts)
    if described:
        yield _words("rlm-context", "context", redact(f"{heading(2, 'Context')}\n\n{described}"))
    if run.started.repl not in TRUSTED:
        yield _words("rlm-rights", "note", _RIGHTS.format(repl=line(run.started.repl)))
    yield _code("rlm-setup", "setup", setup, [], None, hidden=True)
    executed = {id(cell) for cell in recording.replayed(run)}
    count = 1
    for note in run.notes:
        yield _words(f"rlm-note-{count}", "note", redact(f"*{line(note.text)}*"))
    for turn in run.turns:
        yield _words(f"rlm-turn-{turn.number}", "turn", redact(_turn(turn)))
        for number, part in enumerate(turn.parts):
            name = f"rlm-{turn.number}-{number}"
            if isinstance(part, NotePart):
                yield _words(name, "note", redact(f"*{line(part.text)}*"))
            elif id(part) in executed:
                count += 1
                yield _executed(name, part, count, redact, run.started.repl)
                if called := calls_of(part):
                    yield _words(f"{name}-calls", "calls", redact(called))
            else:
                yield _words(name, "not-executed", redact(shown_cell(part)))
            if isinstance(part, CellPart):
                for index, call in enumerate(part.calls):
                    if call.child is not None:
                        text = child_run(call.child, 3)
                        yield _words(f"{name}-child-{index}", "child", redact(text))
    yield _words("rlm-answer", "answer", redact(outcome(run)))
    yield _code("rlm-check", "check", _CHECK, [], None)


def _turn(turn: TurnPart) -> str:
    prose = words(parse(turn.text).prose)
    error = f"\n\n*The request failed: {line(turn.error)}*" if turn.error else ""
    return f"{heading(2, f'Turn {turn.number}')}\n\n{prose}{error}".rstrip()


def _executed(
    name: str, cell: CellPart, count: int, redact: Callable[[str], str], repl: str
) -> dict[str, Any]:
    started, finished = cell.started, cell.finished
    assert finished is not None
    about = {
        "cell": started.cell,
        "turn": started.turn,
        "block": started.block,
        "status": finished.status,
        "seconds": round(finished.seconds, 3),
        "calls": len(cell.calls),
    }
    outputs = [_output(each, count, redact, repl) for each in finished.outputs]
    made = _code(name, "cell", redact(started.code), outputs, count)
    made["metadata"]["rlm"] = about
    if finished.status == "error":
        made["metadata"]["tags"].append("raises-exception")
    return made


def _output(output: Output, count: int, redact: Callable[[str], str], repl: str) -> dict[str, Any]:
    text = redact(output.text)
    if output.kind in ("stdout", "stderr"):
        return {"output_type": "stream", "name": output.kind, "text": text}
    if output.kind == "error":
        return {
            "output_type": "error",
            "ename": redact(output.name),
            "evalue": redact(output.value),
            "traceback": text.split("\n"),
        }
    kept, left_out = shown_data(output.data, repl)
    data: dict[str, Any] = {mime: _value(mime, each, redact) for mime, each in kept.items()}
    if text or not data:
        data["text/plain"] = text or "".join(f"[{redact(mime)}, not kept]" for mime in left_out)
    metadata = {"rlm": {"left_out": [redact(mime) for mime in left_out]}} if left_out else {}
    made: dict[str, Any] = {"output_type": "display_data", "data": data, "metadata": metadata}
    if output.kind == "result":
        made |= {"output_type": "execute_result", "execution_count": count}
    return made


def _value(mime: str, text: str, redact: Callable[[str], str]) -> Any:
    if mime.startswith("image/") and mime != "image/svg+xml":
        return text  # base64, which has no words
    text = redact(text)
    if mime == "application/json" or mime.endswith("+json"):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text
    return text


def _words(name: str, tag: str, text: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": name, "metadata": {"tags": [f"rlm-{tag}"]}, "source": text}


def _code(
    name: str,
    tag: str,
    source: str,
    outputs: list[dict[str, Any]],
    count: int | None,
    *,
    hidden: bool = False,
) -> dict[str, Any]:
    metadata: dict[str, Any] = {"tags": [f"rlm-{tag}"]}
    if hidden:
        metadata["jupyter"] = {"source_hidden": True}
    return {
        "cell_type": "code",
        "id": name,
        "metadata": metadata,
        "source": source,
        "outputs": outputs,
        "execution_count": count,
    }
