"""The sandbox of the kernel `rlm-pyodide` while it starts, and the wheels that it is given."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from ...errors import ConfigError, KernelStartError, RLMError
from ...repl.pyodide import runtime
from ...repl.pyodide.child import Child
from ...repl.pyodide.watch import Limits

__all__ = ["Starting"]


class Starting:
    """A sandbox on its way, made in the background while Jupyter's modules are imported."""

    def __init__(self) -> None:
        self.child: Child | None = None
        self.error: RLMError | None = None
        self.python = ""
        self._done = threading.Event()
        self._over = False
        threading.Thread(target=self._make, name="sandbox-start", daemon=True).start()

    def _make(self) -> None:
        try:
            files = runtime.ensure()
            self.child = Child(files, runtime.deno_command(), Limits.of_environment(), wheels=_wheels())
            self.python = self.child.ready()
        except RLMError as error:
            self.error = error
        except Exception as error:  # noqa: BLE001  an edge: the first cell is to tell
            self.error = KernelStartError(
                f"the sandbox could not be started: {type(error).__name__}: {error}"
            )
        finally:
            self._done.set()
            if self._over and self.child is not None:
                self.child.close()

    def wait(self) -> Child:
        """Return the sandbox once it serves.

        Raises:
            RLMError: it won't.
        """
        self._done.wait()
        if self.error is not None:
            raise self.error
        assert self.child is not None
        return self.child

    def close(self) -> None:
        """End the sandbox, also one that is still starting."""
        self._over = True
        if self.child is not None:
            self.child.close()


def _wheels() -> list[Path]:
    """Return the wheels that the operator allows, as ``RLM_PYODIDE_WHEELS`` lists files and folders.

    Raises:
        ConfigError: one is no pure Python wheel.
    """
    found: list[Path] = []
    for each in os.environ.get("RLM_PYODIDE_WHEELS", "").split(os.pathsep):
        if each:
            found.extend(sorted(Path(each).glob("*.whl")) if Path(each).is_dir() else [Path(each)])
    for wheel in found:
        if not wheel.name.endswith("-none-any.whl") or not wheel.is_file():
            raise ConfigError(
                f"RLM_PYODIDE_WHEELS: {wheel} is no file of a pure Python wheel",
                hint="only wheels whose names end with -none-any.whl can be imported in the sandbox",
            )
    return found
