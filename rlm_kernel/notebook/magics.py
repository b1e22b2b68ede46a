"""`%rlm` and `%%rlm`: questions about live variables, and commands around them.

A magic waits for its answer in the main thread while the run goes on in the background's, so that the
notebook's stop button reaches it as an interrupt; the `rlm` kernel awaits the same in place of that. A
question without an answer is an error of the cell. Nothing here can change a run, but for what the person
says to it.
"""

from __future__ import annotations

import asyncio
import atexit
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import traitlets
from IPython.core.magic import Magics, line_cell_magic, magics_class, no_var_expand

from .. import background, page
from ..answer import Answer
from ..config import FIELDS, Setting
from ..errors import ConfigError, InputError, RLMError
from . import commands, complete, subjects
from .desk import Asking, Desk
from .display import choose
from .failures import no_answer, shortened
from .options import Asked, Command, mentions, parse_cell, parse_line, usage
from .settings import NAMES, Keys, settle
from .shown import Shown
from .transform import awaited, called, transformer

__all__ = ["RLMMagics", "load", "unload"]

_ABOUT = {field.name: field for field in FIELDS}


class _SettingTrait(traitlets.TraitType[Any, Any]):
    """A setting as `rlm_kernel.config` knows it; None where it is not set here."""

    default_value = None

    def __init__(self, name: str) -> None:
        super().__init__(allow_none=True, help=_ABOUT[name].about)
        self._field = _ABOUT[name]

    def validate(self, obj: Any, value: Any) -> Any:
        if value is not None:
            try:
                self._field.parse(value)
            except ValueError as error:
                raise traitlets.TraitError(f"{self._field.name} is {value!r}; give {error}") from None
        return value

    def from_string(self, s: str) -> Any:
        return s


@magics_class
class RLMMagics(Magics):
    """The magics of one shell; its settings are traits, for `%config` and IPython's configuration file."""

    shell: Any
    model = _SettingTrait("model").tag(config=True)
    sub_model = _SettingTrait("sub_model").tag(config=True)
    base_url = _SettingTrait("base_url").tag(config=True)
    api = _SettingTrait("api").tag(config=True)
    direct_below = _SettingTrait("direct_below").tag(config=True)
    repl = _SettingTrait("repl").tag(config=True)
    gateway_url = _SettingTrait("gateway_url").tag(config=True)
    kernel_name = _SettingTrait("kernel_name").tag(config=True)
    gateway_insecure = _SettingTrait("gateway_insecure").tag(config=True)
    state_dir = _SettingTrait("state_dir").tag(config=True)
    max_depth = _SettingTrait("max_depth").tag(config=True)
    max_iterations = _SettingTrait("max_iterations").tag(config=True)
    cell_timeout = _SettingTrait("cell_timeout").tag(config=True)
    budget_usd = _SettingTrait("budget_usd").tag(config=True)
    budget_tokens = _SettingTrait("budget_tokens").tag(config=True)
    budget_calls = _SettingTrait("budget_calls").tag(config=True)
    budget_seconds = _SettingTrait("budget_seconds").tag(config=True)
    budget_errors = _SettingTrait("budget_errors").tag(config=True)
    prices = traitlets.Dict(
        help='Prices by model, USD per million tokens: {"name": (input, output)}; cached input may be third.'
    ).tag(config=True)
    plain = traitlets.Bool(default_value=False, help="Show no widgets.").tag(config=True)
    quiet = traitlets.Bool(default_value=False, help="Show nothing of runs.").tag(config=True)
    inline_trace_kb = traitlets.Int(
        64, min=0, help="The longest trajectory kept in the notebook itself, in KB; longer ones go to a file."
    ).tag(config=True)

    def __init__(self, shell: Any, **options: Any) -> None:
        self.file: dict[str, Any] = {}
        super().__init__(shell=shell, **options)
        # What is set from now on is set in this notebook.
        self.file = {name: getattr(self, name) for name in NAMES if getattr(self, name) is not None}
        self.here: dict[str, Any] = {}
        self.observe(self._set_here, list(NAMES))
        self.desk = Desk()
        self.keys = Keys()
        self.default: tuple[str, ...] = ()
        self.listed: list[str] = []
        self.shown = Shown()
        self.matcher: Any = None
        self.transform: Any = None

    def _set_here(self, change: Any) -> None:
        if change["new"] is None:
            self.here.pop(change["name"], None)
        else:
            self.here[change["name"]] = change["new"]

    @no_var_expand
    @line_cell_magic
    def rlm(self, line: str, cell: str | None = None) -> Any:
        """Ask a question about variables and files; return the answer, which is in `_rlm` as well."""
        asked = self._guarded(lambda: self._parsed(line, cell))
        if isinstance(asked, Command):
            return self._guarded(lambda: commands.carry_out(self, asked))
        try:
            asking = self._begin(asked)
            if asked.get("background"):
                return self._let_go(asking)
            try:
                answer = self.desk.wait(asking)
            finally:
                self._conclude(asking)
            return self._judged(answer)
        except (RLMError, KeyboardInterrupt) as error:
            raise self._told(error, debug=asked.get("debug")) from None

    async def aask(self, line: str, cell: str | None = None) -> Any:
        """Do what the magic does, and leave the event loop to others meanwhile: for the `rlm` kernel."""
        asked = self._guarded(lambda: self._parsed(line, cell))
        if isinstance(asked, Command):
            return self._guarded(lambda: commands.carry_out(self, asked))
        try:
            asking = self._begin(asked)
            if asked.get("background"):
                return self._let_go(asking)
            try:
                answer = await self.desk.until(asking)
            finally:
                self._conclude(asking)
            return self._judged(answer)
        except (RLMError, KeyboardInterrupt) as error:
            raise self._told(error, debug=asked.get("debug")) from None

    @staticmethod
    def _parsed(line: str, cell: str | None) -> Asked | Command:
        return parse_line(line) if cell is None else parse_cell(line, cell)

    def _guarded(self, work: Any) -> Any:
        try:
            return work()
        except RLMError as error:
            raise self._told(error) from None

    @staticmethod
    def _told(error: BaseException, *, debug: bool = False) -> BaseException:
        if isinstance(error, KeyboardInterrupt):
            error = KeyboardInterrupt("the run was cancelled; what it has found is in _rlm")
        return error if debug else shortened(error)

    # Asking -----------------------------------------------------------------------------------------

    def settings(self, options: Mapping[str, Any] | None = None) -> dict[str, Setting]:
        """Return every setting as it is for a question with ``options``."""
        own = {name: value for name, value in (options or {}).items() if name in NAMES}
        return settle(own, self.here, self.file, self.keys)

    def secrets(self) -> list[str]:
        """Return what must not be shown: keys, tokens, and keys of other endpoints that were typed here."""
        secret = [setting.value for setting in self.settings().values() if setting.secret and setting.value]
        return [*secret, *self.keys.all]

    def priced(self) -> dict[str, Any]:
        """Return the trait's prices as the package takes them.

        Raises:
            ConfigError: they are not of the form that the trait's help tells.
        """
        from ..models.prices import Price  # noqa: PLC0415  on use

        try:
            return {
                name: Price(*(Decimal(str(amount)) for amount in amounts))
                for name, amounts in self.prices.items()
            }
        except (TypeError, ValueError, ArithmeticError):
            raise ConfigError(
                f"RLMMagics.prices is {self.prices!r}", hint='give {"name": (input, output)}'
            ) from None

    def _begin(self, asked: Asked) -> Asking:
        """Start the run that is asked for."""
        if not asked.question:
            raise InputError("no question given", hint="ask one: %rlm What changed? -c old -c new")
        settings = self.settings(asked.options)
        again = bool(asked.get("again"))
        if again and (fixed := sorted(set(asked.options) & set(NAMES))):
            raise InputError(
                f"--continue goes on with the settings of the run before, without {', '.join(fixed)}",
                hint="leave these out, or leave --continue out",
            )
        given = (*(asked.get("context") or ()), *self._mentioned(asked.question))
        contexts = subjects.contexts(given or (() if again else self.default), self.shell.user_ns)
        live = settings["repl"].value == "shell" or settings["repl"].value.startswith("attach:")
        if not contexts and not again and not live:
            raise InputError(
                "nothing is named that the question is about",
                hint="name a variable, -c NAME or @NAME, or choose one: %rlm use NAME",
            )
        view = choose(
            self.shell,
            quiet=bool(asked.get("quiet") or self.quiet),
            plain=bool(asked.get("plain") or self.plain),
            secrets=self.secrets(),
            inline_bytes=self.inline_trace_kb * 1024,
            hears=bool(asked.get("background")) or hasattr(self.shell, "ask_rlm"),
        )
        asking = None
        try:
            view.begin(asked.question)
            asking = self.desk.ask(
                asked.question,
                contexts,
                settings,
                view=view,
                prices=self.priced(),
                again=again,
                share=bool(asked.get("share")),
                cite=bool(asked.get("cite")),
                output=asked.get("output"),
            )
            view.follow(asking.run)
        except BaseException:
            if asking is None:
                view.end()
            else:  # an interrupt just then
                self.desk.abandon(asking)
                self._conclude(asking)
            raise
        return asking

    def _mentioned(self, question: str) -> tuple[str, ...]:
        return tuple(name for name in mentions(question) if name in self.shell.user_ns)

    def _conclude(self, asking: Asking) -> None:
        """Show what stays of a run, and put its answer where the user finds it."""
        asking.view.end()
        asking.conclude()
        if asking.answer is not None:
            self.shell.user_ns["_rlm"] = asking.answer
            if asking.output:
                self.shell.user_ns[asking.output] = asking.answer

    def _judged(self, answer: Answer) -> Answer:
        self.shown.add(answer)
        if not answer:
            raise no_answer(answer)
        return answer

    def start_quietly(self, line: str, question: str) -> Any:
        """Start a run that shows nothing, and return it: for forms, which show it themselves.

        Raises:
            InputError: as the magic does.
        """
        return self._let_go(self._begin(parse_cell(f"-q {line}", question)))

    def _let_go(self, asking: Asking) -> Any:
        """Return a run that goes on by itself, and see to its end."""

        async def conclude() -> None:
            try:
                asking.answer = await asking.run
            except BaseException as error:
                asking.view.end(error)
                asking.conclude()
                raise
            self._conclude(asking)

        asking.conclusion = asyncio.run_coroutine_threadsafe(conclude(), background.loop())
        return asking.run


RLMMagics.rlm.__doc__ = f"""Ask a question about variables and files of this notebook.

Usage:
  %rlm [options] QUESTION [options]        %%rlm [options]
  %rlm COMMAND ...                         QUESTION, on any number of lines

Examples:
  %rlm What changed? -c old -c new
  %rlm Which year in @report had the highest revenue?
  answer = %rlm -q --budget 0.50 How many are late? -c orders
  %rlm --continue And which of them twice?

The question stays as it is: nothing in it is expanded, and it may end in a question mark. A `@name` in it
that is a variable is a context, as after `-c`. What is named becomes a variable in the model's REPL; models
are told its type, size and beginning. The answer is shown, returned, and in `_rlm`. After `--` nothing is an
option, nor a command.

{usage()}
"""


def load(shell: Any) -> RLMMagics:
    """Put the magics into ``shell``; return them. What is there already stays."""
    if (there := shell.magics_manager.registry.get(RLMMagics.__name__)) is not None:
        found: RLMMagics = there
        return found
    magics = RLMMagics(shell)
    shell.register_magics(magics)
    if page.here() and not hasattr(shell, "ask_rlm"):
        # Every cell is a coroutine there, and nothing else can wait.
        shell.ask_rlm = magics.aask
    # The `rlm` kernel's shell can await.
    transform = transformer(awaited if hasattr(shell, "ask_rlm") else called)
    shell.input_transformers_cleanup.append(transform)
    magics.transform = transform
    complete.install(magics)
    magics.shown.install(shell)
    shell.user_ns_hidden["_rlm"] = None
    atexit.register(magics.desk.close)
    return magics


def unload(shell: Any) -> None:
    """Take the magics out of ``shell``, and end their runs and kernels."""
    magics = shell.magics_manager.registry.pop(RLMMagics.__name__, None)
    if magics is None:
        return
    shell.input_transformers_cleanup.remove(magics.transform)
    complete.remove(magics)
    magics.shown.remove()
    for kind in ("line", "cell"):
        shell.magics_manager.magics[kind].pop("rlm", None)
    atexit.unregister(magics.desk.close)
    magics.desk.close()
