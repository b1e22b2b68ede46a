"""``jupyter rlm sessions``: the named sessions of this machine, from their records and their gateways."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...config import resolve
from ...errors import InputError, RLMError
from .address import Gateway
from .named import Named, Record, check_name, records, state_folder
from .rest import Rest

__all__ = ["show_all", "show_one", "stop"]

STATE_SECONDS = 10.0
SHOWN_CHARS = 100


def show_all(args: argparse.Namespace) -> int:
    """List the sessions, a line each."""
    found = list(records(_folder()))
    states = asyncio.run(_states(found))
    if args.json:
        _write(json.dumps([_public(each, state) for each, state in zip(found, states, strict=True)]))
        return 0
    if not found:
        _write("no named sessions; rlm.session(..., name=...) or jupyter rlm run --session makes one")
        return 0
    rows = [("NAME", "KERNEL", "USED", "QUESTIONS", "CONTEXTS", "GATEWAY")]
    for record, state in zip(found, states, strict=True):
        contexts = ", ".join(kept.name for kept in record.contexts) or "-"
        used = _ago(time.time() - record.used)
        rows.append((record.name, state, used, str(len(record.history)), contexts, record.url))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        _write("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def show_one(args: argparse.Namespace) -> int:
    """Tell what is known of one session."""
    record = _record(args.name)
    (state,) = asyncio.run(_states([record]))
    if args.json:
        _write(json.dumps(_public(record, state)))
        return 0
    _write(f"{record.name}: kernel {state}, last used {_ago(time.time() - record.used)}")
    _write(f"on {record.url}; it ends {record.idle:g} s after the last question")
    for kept in record.contexts:
        _write(f"context: {kept.info['description'].splitlines()[0]}")
    if record.variables:
        _write(f"variables: {', '.join(record.variables)}")
    for entry in record.history:
        _write(f"asked: {_short(entry['question'])}")
        _write(f"  {entry['status']}: {_short(entry['answer'])}")
    return 0


def stop(args: argparse.Namespace) -> int:
    """End a session: its kernel, and all that is recorded."""
    record = _record(args.name)
    # With the lock alone it can be forgotten, whoever may be asked.
    named = Named(_folder(), record.name, Gateway(record.url, allow_http=True))
    try:
        named.gateway = _gateway(record)
        asyncio.run(named.stop())
    except RLMError as error:
        if not args.force:
            error.hint = f"{error.hint}; --force forgets the session, whose kernel then ends by itself"
            raise
        named.forget()
    finally:
        named.release()
    _write(f"{record.name} has ended")
    return 0


def _folder() -> Path:
    return state_folder(resolve({})["state_dir"].value)


def _record(name: str) -> Record:
    found = next((each for each in records(_folder()) if each.name == check_name(name)), None)
    if found is None:
        raise InputError(f"there is no session named {name!r}", hint="jupyter rlm sessions list names them")
    return found


def _gateway(record: Record) -> Gateway:
    settings = {name: setting.value for name, setting in resolve({}).items()}
    return Gateway.elsewhere(record.url, settings, kernel_name=record.kernel_name)


async def _states(found: list[Record]) -> list[str]:
    return list(await asyncio.gather(*map(_state, found)))


async def _state(record: Record) -> str:
    if not record.kernel:
        return "none yet"
    try:
        async with asyncio.timeout(STATE_SECONDS), Rest(_gateway(record)) as rest:
            return await rest.state(record.kernel) or "gone"
    except (RLMError, TimeoutError):
        return "unknown"


def _public(record: Record, state: str) -> dict[str, Any]:
    return {**asdict(record), "state": state}


def _ago(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{max(seconds, 0):.0f} s ago"


def _short(text: str) -> str:
    text = " ".join(str(text).split())
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 3] + "..."


def _write(text: str) -> None:
    from ...trace.progress import clean  # noqa: PLC0415  on use

    # A record holds what models and kernels said.
    sys.stdout.write(clean(text) + "\n")
