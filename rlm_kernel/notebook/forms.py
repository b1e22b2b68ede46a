"""Forms of stock widgets, for those who would rather click: settings, and a question."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import ipywidgets  # type: ignore[import-untyped]
from IPython.core.getipython import get_ipython

from ..config import FIELDS
from ..errors import InputError, RLMError
from . import subjects
from .failures import brief_traceback
from .tables import Table

if TYPE_CHECKING:
    from .magics import RLMMagics

__all__ = ["ask", "config_form", "show_form"]

_WIDE = {"description_width": "9em"}
_FORM = (
    *("model", "sub_model", "base_url", "repl"),
    *("max_depth", "max_iterations", "cell_timeout", "budget_usd"),
)


def show_form(form: Any, table: Table) -> None:
    """Display ``form``; where there are no widgets, ``table`` is read in its place."""
    from IPython.display import display  # noqa: PLC0415  on use

    shown = form._repr_mimebundle_()
    data = shown[0] if isinstance(shown, tuple) else shown
    display(  # type: ignore[no-untyped-call]
        {**data, "text/plain": str(table), "text/html": table._repr_html_()}, raw=True
    )


def config_form(magics: RLMMagics) -> ipywidgets.VBox:
    """Return a form of the settings of ``magics``; what is typed holds for this notebook, from then on."""
    from .commands import set_trait  # noqa: PLC0415  they import each other

    about = {field.name: field.about for field in FIELDS}
    said = ipywidgets.HTML()
    rows: list[Any] = []
    for name in _FORM:
        setting = magics.settings()[name]
        field = ipywidgets.Text(
            value="" if setting.value is None else setting.shown,
            description=name,
            tooltip=about[name],
            continuous_update=False,
            style=_WIDE,
            layout={"width": "32em"},
        )
        origin = ipywidgets.Label(setting.origin)

        def changed(change: Any, name: str = name, field: Any = field, origin: Any = origin) -> None:
            try:
                set_trait(magics, name, str(change["new"]).strip() or "default")
            except InputError as error:
                said.value = _lines(error)
                return
            said.value = ""
            setting = magics.settings()[name]
            origin.value = setting.origin
            shown = "" if setting.value is None else setting.shown
            if field.value != shown:
                field.value = shown

        field.observe(changed, "value")
        rows.append(ipywidgets.HBox([field, origin]))
    return ipywidgets.VBox([*rows, said])


class _AskForm(ipywidgets.VBox):  # type: ignore[misc]
    """The form of `ask`; ``run`` is the last run that it has started."""

    def __init__(self, magics: RLMMagics) -> None:
        self.run: Any = None
        self._magics = magics
        self.contexts = ipywidgets.SelectMultiple(
            description="About", rows=4, layout={"width": "98%"}, style=_WIDE
        )
        self.question = ipywidgets.Textarea(
            description="Question", rows=3, layout={"width": "98%"}, style=_WIDE
        )
        settings = magics.settings()
        self.model = ipywidgets.Text(value=settings["model"].value or "", description="Model", style=_WIDE)
        cap = settings["budget_usd"].value
        self.budget = ipywidgets.Text(
            value="" if cap is None else f"{cap:g}",
            description="Budget, USD",
            placeholder="no cap",
            style=_WIDE,
        )
        self.button = ipywidgets.Button(description="Ask", button_style="primary")
        self.again = ipywidgets.Button(
            description="Look for variables", icon="refresh", layout={"width": "auto"}
        )
        self.said = ipywidgets.HTML()
        self.place = ipywidgets.VBox()
        self.button.on_click(self._ask)
        self.again.on_click(self._look)
        self._look()
        super().__init__(
            [
                self.contexts,
                self.question,
                ipywidgets.HBox([self.model, self.budget]),
                ipywidgets.HBox([self.button, self.again]),
                self.said,
                self.place,
            ]
        )

    def _look(self, _: Any = None) -> None:
        shell = self._magics.shell
        chosen = set(self.contexts.value)
        found = [
            (f"{name}  ({subjects.about(value)})", name)
            for name, value in subjects.variables(shell.user_ns, shell.user_ns_hidden)
        ]
        self.contexts.options = found
        self.contexts.value = tuple(name for _, name in found if name in chosen)

    def _ask(self, _: Any = None) -> None:
        options = [f"-c {name}" for name in self.contexts.value]
        if self.model.value.strip():
            options.append(f"-m {self.model.value.strip()}")
        if self.budget.value.strip():
            options.append(f"--budget {self.budget.value.strip()}")
        self.said.value = ""
        try:
            self.run = self._magics.start_quietly(" ".join(options), self.question.value)
        except RLMError as error:
            self.said.value = _lines(error)
            return
        from .panel import RunPanel  # noqa: PLC0415  heavy

        former = self.place.children
        self.place.children = (RunPanel(self.run, secrets=self._magics.secrets()),)
        for each in former:
            each.close()


def ask() -> _AskForm:
    """Return a small form to ask by: context, question, model, budget; the answer will be in ``_rlm``.

    Raises:
        InputError: this is no notebook.
    """
    shell = get_ipython()
    if shell is None or getattr(shell, "kernel", None) is None:
        raise InputError("a form needs a notebook", hint="ask by RLM().completion(question, context)")
    from .magics import load  # noqa: PLC0415  heavy

    return _AskForm(load(shell))


def _lines(error: BaseException) -> str:
    return "<br>".join(escape(line) for line in brief_traceback(error))
