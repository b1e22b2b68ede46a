"""Code that a model wrote without opening a fence, as small models do: the reply begins with it.

Only text that is Python from its first character, and that does something, is taken for code: prose that
happens to parse is not.
"""

from __future__ import annotations

import ast
import re
import warnings

__all__ = ["bare_code"]

_LONGEST = 20_000
_FENCE = re.compile(r"^[ \t]*(?:`{3,}|~{3,})[ \t]*$", re.MULTILINE)
_DOES = (ast.Import, ast.ImportFrom, ast.Assign, ast.AugAssign, ast.For, ast.While, ast.With, ast.FunctionDef)
_ANSWERS = frozenset({"FINAL", "FINAL_VAR"})


def bare_code(reply: str, begin: int) -> tuple[str, int, bool] | None:
    """Return the code that ``reply`` begins with at ``begin``, where it ends, and whether by a fence.

    None if there is none. The end is that of the fence's line.
    """
    fence = _FENCE.search(reply, begin)
    code = reply[begin : fence.start() if fence else len(reply)].strip("\n").rstrip()
    if not code or len(code) > _LONGEST or not _does_something(code):
        return None
    return code, fence.end() if fence else len(reply), fence is not None


def _does_something(code: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = compile(
                code, "reply", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
            )
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    assert isinstance(tree, ast.Module)
    return any(isinstance(each, _DOES) or _calls(each) for each in tree.body)


def _calls(statement: ast.stmt) -> bool:
    """Tell whether ``statement`` is a call, other than an answer, which may stand outside code."""
    call = statement.value if isinstance(statement, ast.Expr) else None
    call = call.value if isinstance(call, ast.Await) else call
    return isinstance(call, ast.Call) and not (isinstance(call.func, ast.Name) and call.func.id in _ANSWERS)
