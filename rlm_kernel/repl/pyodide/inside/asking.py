"""Questions of a frontend about code: completions, explanations, whether it is complete."""

from __future__ import annotations

import ast
import builtins
import codeop
import contextlib
import inspect
import keyword
import re
import rlcompleter
import sys
from typing import Any

__all__ = ["complete", "explain", "is_complete"]

COMPLETIONS = 500


def complete(namespace: Any, code: Any, position: Any) -> Any:
    """Return the names that may go on from a position."""
    before = code[:position]
    found = re.search(r"[\w.]*$", before)
    text = found.group() if found else ""
    if re.search(r"[)\]]\.\w*$", before) or text.startswith("."):
        text = text.rpartition(".")[2]
        return {"matches": [], "start": position - len(text)}
    completer = rlcompleter.Completer(namespace)
    matches = []
    for state in range(COMPLETIONS):
        match = completer.complete(text, state)
        if match is None:
            break
        match = match.rstrip("( ")
        if match.startswith(text) and match not in matches:
            matches.append(match)
    line = before.rpartition("\n")[2]
    imported = re.match(r"\s*(?:import|from)\s+([\w.]*)$", line)
    if imported:
        prefix = imported.group(1)
        known = {*sys.stdlib_module_names, *sys.modules}
        matches = sorted(name for name in known if name.startswith(prefix) and not name.startswith("_rlm"))
        text = prefix
    return {"matches": matches[:COMPLETIONS], "start": position - len(text)}


def explain(namespace: Any, code: Any, position: Any) -> Any:
    """Return what is known of the name at a position."""
    left = re.findall(r"[\w.]*$", code[:position])[0]
    right = re.findall(r"\w*", code[position:])[0]
    name = left + right
    if not name:
        # Inside of a call: what is called.
        called = re.search(r"([\w.]+)\s*\([^()]*$", code[:position])
        name = called.group(1) if called else ""
    parts = name.split(".")
    if not all(part.isidentifier() and not keyword.iskeyword(part) for part in parts):
        return {"found": False}
    missing = object()
    value = namespace.get(parts[0], getattr(builtins, parts[0], missing))
    for part in parts[1:]:
        value = inspect.getattr_static(value, part, missing) if value is not missing else missing
        if isinstance(value, (staticmethod, classmethod)):
            value = value.__func__
    if value is missing:
        return {"found": False}
    lines = []
    if callable(value):
        with contextlib.suppress(Exception):
            lines.append(f"Signature: {name}{inspect.signature(value)}")
    lines.append(f"Type:      {type(value).__name__}")
    if not callable(value):
        with contextlib.suppress(Exception):
            lines.append(f"Value:     {repr(value)[:500]}")
    with contextlib.suppress(Exception):
        told = inspect.getdoc(value)
        if told:
            lines.append(f"Docstring:\n{told[:10_000]}")
    return {"found": True, "text": "\n".join(lines)}


def is_complete(code: Any) -> Any:
    """Return whether code can be run as it is, and where it would go on if not."""
    compiler = codeop.CommandCompiler()
    compiler.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    try:
        whole = compiler(code, "<cell>", "exec") if "\n" not in code.strip() else _whole(code)
    except (SyntaxError, ValueError, OverflowError):
        return {"status": "invalid"}
    if whole is not None:
        return {"status": "complete"}
    last = code.rstrip("\n").rpartition("\n")[2]
    indent = last[: len(last) - len(last.lstrip())]
    return {"status": "incomplete", "indent": indent + ("    " if last.rstrip().endswith(":") else "")}


def _whole(code: Any) -> Any:
    """Compile lines; None if more are to come: a block is over with an empty line."""
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return codeop.compile_command(code, "<cell>", "exec")
    block = tree.body and isinstance(
        tree.body[-1],
        (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.For, ast.While, ast.If, ast.With, ast.Try),
    )
    return (
        None
        if block and not code.endswith("\n") and code.rpartition("\n")[2].startswith((" ", "\t"))
        else tree
    )
