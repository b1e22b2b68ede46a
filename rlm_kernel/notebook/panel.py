"""`RunPanel`: a run in the notebook as it happens, as one widget.

One widget and one comm whatever the size of the run: batches of events go out as messages (`Feed`), the
front end (``static/``) makes rows of them. Nothing depends on messages coming back, since none arrives
while the kernel is busy with a cell: what comes only adds to what is shown. Invariant: a panel can't change
a run, but for the person's Stop and what the person says to the model.
"""

from __future__ import annotations

import json
import os
import secrets as random
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import anywidget
import traitlets

from .. import page
from ..errors import InputError
from ..events import CallFinished, Event, RunFinished, RunStarted
from ..repl.lite.line import BroadcastLine
from ..trace.redact import Redactor
from ..usage import Usage
from .brief import Whole
from .bundle import Record, texts
from .feed import Batch, Feed
from .outline import Outline

__all__ = ["RunPanel", "Watched", "show"]

_STATIC = Path(__file__).parent / "static"
_IMPORT = 'import { mount } from "./tree.js";\n'
_FIRST_SNAPSHOT_SECONDS = 0.25
_SAID_CHARS = 20_000


@runtime_checkable
class Watched(Protocol):
    """A run under way, as far as a panel needs it. One that can be steered also has ``say(text)``."""

    def subscribe(self, reader: Callable[[Event], None], /) -> Callable[[], None]:
        """Hand ``reader`` the events so far, then each as it comes; return what ends that."""
        ...

    def cancel(self) -> Any:
        """End the run; may be called in any thread."""
        ...


def _module() -> str:
    """Return the widget's one JavaScript module: `tree.js` in the place of its import by `panel.js`."""
    panel = (_STATIC / "panel.js").read_text(encoding="utf-8")
    tree = (_STATIC / "tree.js").read_text(encoding="utf-8")
    if panel.count(_IMPORT) != 1:
        raise RuntimeError(f"panel.js does not import tree.js by the line {_IMPORT!r}")
    return tree + panel.replace(_IMPORT, "")


class RunPanel(anywidget.AnyWidget):
    """Shows ``run``, live or recorded; an ipywidgets widget that sits in any box.

    ``run`` is a `Watched`, the events of a run that is over, or None: then `take` is the reader to hand to
    `rlm_kernel.RLM`, and there is no Stop. ``secrets`` never reach the page; what looks like a key doesn't
    either. The traits follow the run, in the thread that its events come in; nobody else can set them.

    Raises:
        InputError: ``run`` is none of these.
    """

    status = traitlets.Unicode("starting", read_only=True, help="running, or how the run ended").tag(
        sync=True
    )
    cost_usd = traitlets.Float(
        0.0, allow_none=True, read_only=True, help="spent so far; None where a price is unknown"
    ).tag(sync=True)
    answer = traitlets.Unicode("", read_only=True, help="the answer's text, once there is one").tag(sync=True)

    _esm = _module()
    _css = (_STATIC / "panel.css").read_text(encoding="utf-8")
    _name = traitlets.Unicode("").tag(sync=True)
    _can_stop = traitlets.Bool(default_value=False).tag(sync=True)
    _can_say = traitlets.Bool(default_value=False).tag(sync=True)
    _page: ClassVar[bool] = False
    _line = traitlets.Unicode("").tag(sync=True)
    # Its value is made when it is sent: nobody holds a second copy of a run.
    _snapshot = traitlets.Dict().tag(sync=True)

    def __init__(
        self, run: Watched | Iterable[Event] | None = None, *, secrets: Iterable[str] = (), **traits: Any
    ) -> None:
        live = run if isinstance(run, Watched) else None
        if run is not None and live is None and not isinstance(run, Iterable):
            raise InputError(
                f"a panel can't show a {type(run).__name__}", hint="give it a run, or the events of one"
            )
        secrets = tuple(secrets)
        self._run = live
        self._feed = Feed(self._send_batch, Redactor(secrets))
        self._whole = Whole(Redactor(secrets))
        self._outline = Outline(Redactor(secrets))
        self._totals = _Totals()
        self._resend = _FIRST_SNAPSHOT_SECONDS
        self._heard = False
        self._retired = False
        self._open = False
        # In JupyterLite what comes by the comm waits until no cell runs.
        self._past = BroadcastLine() if live is not None and page.here() else None
        # Before there is a line to the front end, so that what has happened goes out with the first state.
        self._unsubscribe = live.subscribe(self.take) if live is not None else None
        if run is not None and live is None:
            for event in run:  # type: ignore[union-attr]
                self.take(event)
            self._feed.flush()
        super().__init__(
            _name=random.token_hex(8),
            _can_stop=live is not None,
            _can_say=callable(getattr(live, "say", None)),
            _line="" if self._past is None else self._past.name,
            **traits,
        )
        self.on_msg(self._received)
        if self._past is not None:
            self._past.listen(self._heard_past)
        self._open = True
        if live is not None:
            # What has come in another thread since the state went out was sent to nobody.
            self.send_state("_snapshot")
        self._follow()

    def take(self, event: Event) -> None:
        """Show ``event``: a reader for `rlm_kernel.events.Emitter`."""
        self._totals.take(event)
        self._whole.take(event)
        self._outline.take(event)
        self._feed.take(event)

    @property
    def heard(self) -> bool:
        """Whether the panel has had word from the page: then it is shown there."""
        return self._heard

    @classmethod
    def heard_before(cls) -> bool:
        """Tell whether any panel of this process has had word from its page."""
        return cls._page

    def close(self) -> None:
        """Let go of the run, which goes on, and take the panel off the page."""
        if self._unsubscribe is not None:
            self._unsubscribe()
        if self._past is not None:
            self._past.close()
        super().close()

    def retire(self) -> None:
        """Close, in a kernel that was deaf as soon as it knows whether the page shows panels.

        What the page has said meanwhile still waits to be read. Nothing of the run is kept for that.
        """
        if self._heard or self._page:
            self.close()
            return
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        self._retired = True
        self._run = None
        self._feed, self._whole, self._outline = Feed(self._send_batch, str), Whole(str), Outline(str)

    def get_state(self, key: Any = None, drop_defaults: bool = False) -> Any:  # noqa: FBT001, FBT002  theirs
        """Return the state for the front end, with all that was sent so far."""
        state = super().get_state(key=key, drop_defaults=drop_defaults)
        if "_snapshot" in state:
            state["_snapshot"] = self._feed.snapshot()
        return state

    def set_state(self, sync_data: Mapping[str, Any]) -> None:
        """Take state from the front end: how the widget is laid out, and nothing of the run."""
        own = RunPanel.class_own_traits()
        super().set_state({name: value for name, value in sync_data.items() if name not in own})

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """Return the widget, and beside it what is readable where there is none."""
        widget = super()._repr_mimebundle_(**kwargs)
        if widget is None:
            return None
        data, metadata = widget
        return {**data, **texts(self._outline)}, metadata

    # To the front end -------------------------------------------------------------------------------

    def _send_batch(self, batch: Batch) -> None:
        if not self._open:
            return
        self.send({"op": "events", **batch})
        if not self._heard and (self._totals.over or self._totals.seconds >= self._resend):
            # What came while the front end was still loading is lost to it, and no word of it can get here
            # while a cell keeps the kernel busy.
            self._resend = max(self._resend, self._totals.seconds) * 2
            self.send_state("_snapshot")
        self._follow()

    def _follow(self) -> None:
        """Let the traits say what the totals say."""
        totals = self._totals
        for name, value in (
            ("cost_usd", totals.cost_usd),
            ("answer", totals.answer),
            ("status", totals.status),
        ):
            if getattr(self, name) != value:
                self.set_trait(name, value)

    # From the front end -----------------------------------------------------------------------------

    def _heard_past(self, text: Any) -> None:
        with suppress(ValueError, TypeError, RecursionError):
            self._received(None, json.loads(text), None)

    def _received(self, _: Any, content: Any, __: Any) -> None:
        if not isinstance(content, dict):
            return
        self._heard = RunPanel._page = True
        if self._retired:
            self.close()
            return
        operation = content.get("op")
        if operation == "ping":
            self.send({"op": "pong"})
        elif operation == "resync":
            self.send({"op": "snapshot", **self._feed.snapshot()})
        elif operation == "detail":
            self.send(
                {
                    "op": "detail",
                    "ask": content.get("ask"),
                    "events": self._whole.find(str(content.get("id"))),
                }
            )
        elif operation == "stop" and self._run is not None:
            self._run.cancel()
            self.send({"op": "stopping"})
        elif operation == "say" and self._can_say and isinstance(text := content.get("text"), str):
            with suppress(InputError):  # it was said to a run that has ended meanwhile
                self._run.say(text[:_SAID_CHARS])  # type: ignore[union-attr]


class _Totals:
    """What the traits say: kept apart from them, since setting a trait tells everybody."""

    def __init__(self) -> None:
        self.status = "starting"
        self.answer = ""
        self.over = False
        self.seconds = 0.0
        self._usage = Usage()
        self._root = ""
        self._began = 0.0

    @property
    def cost_usd(self) -> float | None:
        """What was spent; None where a price is unknown."""
        return None if self._usage.cost_usd is None else float(self._usage.cost_usd)

    def take(self, event: Event) -> None:
        """Take in ``event``."""
        if isinstance(event, RunStarted) and event.parent_run is None:
            self.status, self._root, self._began = "running", event.run, event.time
            self._usage = Usage()
            self.over = False
        elif isinstance(event, CallFinished):
            self._usage += event.usage
        elif isinstance(event, RunFinished) and event.run == self._root:
            self.status, self.answer, self._usage = event.status, event.text, event.usage
            self.over = True
        self.seconds = event.time - self._began


def show(
    run: Watched,
    *,
    secrets: Iterable[str] = (),
    folder: str | os.PathLike[str] = "",
    trace: str | None = None,
) -> RunPanel:
    """Display ``run`` as a panel that is replaced, once the run is over, by what a saved notebook can hold.

    See `rlm_kernel.notebook.bundle.Record` for ``folder`` and ``trace``.
    """
    from IPython.display import display  # noqa: PLC0415  on use

    panel = RunPanel(run, secrets=secrets)
    record = Record(secrets=secrets, folder=folder, trace=trace)
    handle = display(panel, display_id=True)  # type: ignore[no-untyped-call]

    def replace(event: Event) -> None:
        record.take(event)
        if record.over and handle is not None:
            handle.update(record.bundle(), raw=True)
            panel.close()

    run.subscribe(replace)
    return panel
