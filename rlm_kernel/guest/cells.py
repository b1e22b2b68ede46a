"""The REPL as model-written code sees it: its names, and what happens around each cell."""

from __future__ import annotations

import builtins
import getpass
import json
import re
import sys
import types

from . import calls, codec, describe, output

ANSWER_CHARS = 8_000_000
_REPL = None


def install(config):
    """Prepare this kernel: names, hooks, cuts, channels. Called once, from the host's first cell."""
    global _REPL
    shell = _shell()
    kernel = getattr(shell, "kernel", None)
    if kernel is not None and not hasattr(kernel, "stdin_socket"):
        kernel = None
    _REPL = Repl(shell, calls.Host(kernel, control=config.get("control", True)), config)


def load(name, format_, path):
    """Bind the context in the file at ``path`` to ``name``."""
    _REPL.contexts[name] = codec.decode_file(format_, path)


def ready():
    """Take the names and hooks into use, and report to the host."""
    _REPL.ready()


def _shell():
    try:
        from IPython import get_ipython
    except ImportError:
        return None
    return get_ipython()


class Repl:
    """The state of the REPL across cells."""

    def __init__(self, shell, host, config):
        self.shell = shell
        self.host = host
        self.contexts = {}
        self.namespace = shell.user_ns if shell is not None else sys.modules["__main__"].__dict__
        self._answer = {"content": "", "ready": False}
        self._final = None
        self._draft = ""
        self._cut = output.OutputCut(
            shell, config["head"], config["tail"], config["displays"], config["image_bytes"]
        )
        self._names = self._make_names()
        self._channels = host.probe()

    def ready(self):
        """Hook into the shell, bind the names, and tell the host what this kernel can do."""
        shell = self.shell
        _set_quietly(shell, "colors", "nocolor", "NoColor")
        self._before = set(self.namespace)
        self._bind()
        shell.events.register("pre_run_cell", self._begin)
        shell.events.register("post_run_cell", self._end)
        self.host.ask("ready", dict(self._channels, implementation=_implementation()))

    def _begin(self, info=None):
        self._final = None
        self.host.begin()
        self._bind()
        # After ipykernel, which puts its own in place for each cell.
        builtins.input = _no_input
        getpass.getpass = _no_input
        self._cut.begin()

    def _end(self, result=None):
        if self.host.cell is None:
            return
        self._cut.end()
        output.short_error(result, 4000)
        self._read_answer()
        self.host.end({"final": self._final, "draft": self._draft, "variables": self._variables()})

    def _bind(self):
        self.namespace.update(self._names)
        self.namespace.update(self.contexts)
        if not isinstance(self.namespace.get("answer"), dict):
            self.namespace["answer"] = self._answer

    def _variables(self):
        taken = self._before | set(self._names) | set(self.contexts) | {"answer"}
        made = (n for n in self.namespace if not n.startswith("_") and n not in taken)
        return sorted(n for n in made if not isinstance(self.namespace[n], types.ModuleType))[:200]

    def _read_answer(self):
        answer = self.namespace.get("answer")
        if not isinstance(answer, dict):
            return
        content = answer.get("content")
        if content is None or content == "":
            return
        if answer.get("ready"):
            if self._final is None:
                try:
                    self._final = _final(content, "answer")
                except Exception as error:
                    print("answer refused:", error, file=sys.stderr)
            # Taken: the next cell starts from a fresh one, should the host refuse this one.
            self.namespace["answer"] = self._answer = {"content": content, "ready": False}
        else:
            self._draft = str(content)[:100_000]

    def _make_names(self):
        ask, ask_async = self.host.ask, self.host.ask_async

        def llm_query(prompt, *, model=None, schema=None):
            """Ask the sub-model one question; return its reply as text."""
            return ask("llm_query", _options({"prompt": _prompt(prompt)}, model, schema))

        async def allm_query(prompt, *, model=None, schema=None):
            """Ask the sub-model one question; awaitable."""
            return await ask_async("llm_query", _options({"prompt": _prompt(prompt)}, model, schema))

        def llm_query_batched(prompts, *, model=None, schema=None):
            """Ask many questions at once; return the replies in order, a CallFailed where one failed."""
            prompts = _prompts(prompts)
            if not prompts:
                return []
            return _slots(ask("llm_query_batched", _options({"prompts": prompts}, model, schema)))

        async def allm_query_batched(prompts, *, model=None, schema=None):
            """Ask many questions at once; awaitable."""
            prompts = _prompts(prompts)
            if not prompts:
                return []
            return _slots(await ask_async("llm_query_batched", _options({"prompts": prompts}, model, schema)))

        def rlm_query(query, context=None, *, model=None):
            """Let a child with a REPL of its own answer ``query`` over ``context``."""
            frames = []
            item = self._item(query, context, frames)
            return ask("rlm_query", _options({"item": item}, model), frames)

        async def arlm_query(query, context=None, *, model=None):
            """Let a child answer ``query`` over ``context``; awaitable."""
            frames = []
            item = self._item(query, context, frames)
            return await ask_async("rlm_query", _options({"item": item}, model), frames)

        def rlm_query_batched(items, *, model=None):
            """Let children answer (query, context) pairs at once; return the answers in order."""
            frames = []
            items = self._items(items, frames)
            return _slots(ask("rlm_query_batched", _options({"items": items}, model), frames)) if items else []

        async def arlm_query_batched(items, *, model=None):
            """Let children answer (query, context) pairs at once; awaitable."""
            frames = []
            items = self._items(items, frames)
            if not items:
                return []
            return _slots(await ask_async("rlm_query_batched", _options({"items": items}, model), frames))

        def budget():
            """Return what is left of the run's budget, as a dict; None means no cap."""
            return ask("budget")

        def FINAL(value):  # noqa: N802
            """End the run with ``value`` as the answer, once this cell is done."""
            self._final = _final(value, "FINAL")

        def FINAL_VAR(name):  # noqa: N802
            """End the run with the variable of this name as the answer, once this cell is done."""
            value = name
            if isinstance(name, str) and re.fullmatch(r"\s*[A-Za-z_]\w*\s*", name):
                key = name.strip()
                if key not in self.namespace:
                    known = ", ".join(self._variables()) or "none"
                    raise NameError("FINAL_VAR: no variable {!r}; your variables: {}".format(key, known))
                value = self.namespace[key]
            self._final = _final(value, "FINAL_VAR")

        def SHOW_VARS():  # noqa: N802
            """Return a listing of the variables you made, with type and size."""
            rows = ["{}: {}".format(n, _kind(self.namespace[n])) for n in self._variables()]
            return _Listing("\n".join(rows) or "no variables yet")

        names = {
            "llm_query": llm_query,
            "allm_query": allm_query,
            "llm_query_batched": llm_query_batched,
            "allm_query_batched": allm_query_batched,
            "rlm_query": rlm_query,
            "arlm_query": arlm_query,
            "rlm_query_batched": rlm_query_batched,
            "arlm_query_batched": arlm_query_batched,
            "recursive_lm": rlm_query,
            "arecursive_lm": arlm_query,
            "budget": budget,
            "FINAL": FINAL,
            "FINAL_VAR": FINAL_VAR,
            "SHOW_VARS": SHOW_VARS,
            "CallFailed": calls.CallFailed,
        }
        for name, each in names.items():
            each.__module__ = "rlm"
            each.__qualname__ = each.__name__ if name != "CallFailed" else name
        return names

    def _items(self, items, frames):
        result = []
        for number, item in enumerate(items):
            if isinstance(item, str):
                item = (item, None)
            if not isinstance(item, (tuple, list)) or len(item) != 2:
                raise TypeError(
                    "rlm_query_batched takes (query, context) pairs; item {} is {}".format(number, _kind(item))
                )
            result.append(self._item(item[0], item[1], frames))
        return result

    def _item(self, query, context, frames):
        """Encode one (query, context) pair; small contexts go with the call, others ahead of it."""
        if not isinstance(query, str):
            raise TypeError("the query must be text, not {}".format(_kind(query)))
        if context is None:
            return {"query": query, "context": None}
        format_, pieces = codec.encode(context, calls.PIECE_BYTES)
        info = describe.describe(context)
        first = next(pieces, b"")
        second = next(pieces, None)
        if second is None and len(first) <= calls.PIECE_BYTES // 16:
            frames.append(first)
            sent = {"frame": len(frames) - 1}
        else:
            sent = {"blob": self.host.upload(format_, _chain(first, second, pieces))}
        return {"query": query, "context": dict(sent, format=format_, info=info)}


def _chain(first, second, rest):
    yield first
    if second is not None:
        yield second
        yield from rest


class _Listing(str):
    """Text that a cell shows as it is."""

    __slots__ = ()

    def __repr__(self):
        return str(self)


def _no_input(*args, **kwargs):
    raise RuntimeError("there is nobody to answer input() here: decide yourself, or ask llm_query")


def _options(args, model=None, schema=None):
    if model is not None:
        args["model"] = model
    if schema is not None:
        args["schema"] = schema
    return args


def _prompts(prompts):
    if isinstance(prompts, (str, bytes)):
        raise TypeError("llm_query_batched takes a list of prompts, not one text")
    return [_prompt(each) for each in prompts]


def _prompt(prompt):
    """Return a prompt as JSON: text, or a list of texts and images."""
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, (list, tuple)) and prompt:
        parts = []
        for each in prompt:
            if isinstance(each, codec.Image):
                parts.append({"image": calls.base64.b64encode(each.data).decode("ascii"), "mime": each.mime})
            elif isinstance(each, str):
                parts.append(each)
            else:
                raise TypeError("a prompt's parts must be texts or images, not {}".format(_kind(each)))
        return parts
    raise TypeError("the prompt must be text, not {}; use str(...) or json.dumps(...)".format(_kind(prompt)))


def _slots(values):
    return [calls.failure(each["error"]) if isinstance(each, dict) and "error" in each else each["value"] for each in values]


def _final(value, via):
    text = value if isinstance(value, str) else None
    try:
        encoded = json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        encoded = None
    if text is None:
        text = str(value)
    size = max(len(text), len(encoded or ""))
    if size > ANSWER_CHARS:
        raise ValueError(
            "the answer has {:,} characters, more than the {:,} allowed: shorten it".format(size, ANSWER_CHARS)
        )
    final = {"text": text, "via": via}
    if encoded is not None:
        final["json"] = encoded
    return final


def _kind(value):
    kind = type(value).__name__
    try:
        return "{} of length {:,}".format(kind, len(value))
    except Exception:
        return kind


def _implementation():
    for name in ("ipykernel", "pyodide_kernel"):
        if name in sys.modules:
            version = getattr(sys.modules[name], "__version__", "")
            return "{} {}, Python {}".format(name, version, sys.version.split()[0])
    return "Python {}".format(sys.version.split()[0])


def _set_quietly(owner, name, *values):
    for value in values:
        try:
            setattr(owner, name, value)
        except Exception:
            continue
        return
