"""Put the JupyterLab extension into the wheel, where it was built: ``make extension``.

It is prebuilt, so that who installs the wheel needs no Node; and who builds without Node gets a wheel
without it, and is told. Where a wheel is to be published, ``RLM_REQUIRE_EXTENSION=1`` makes that an error.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BUILT = "extension/labextension"
TARGET = "share/jupyter/labextensions/@rlm-kernel/labextension"


class ExtensionHook(BuildHookInterface[Any]):
    """Adds the built files as shared data of the wheel."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add them if they are there; ``version`` is ``standard`` or ``editable``.

        Raises:
            FileNotFoundError: they are not, and ``RLM_REQUIRE_EXTENSION`` says they must be.
        """
        root = Path(self.root)
        if (root / BUILT / "package.json").is_file():
            build_data["shared_data"][BUILT] = TARGET
            build_data["shared_data"]["extension/install.json"] = f"{TARGET}/install.json"
            return
        missing = f"the JupyterLab extension is not built ({BUILT} is missing): make extension"
        if os.environ.get("RLM_REQUIRE_EXTENSION") == "1":
            raise FileNotFoundError(missing)
        if version == "standard":
            self.app.display_warning(f"This wheel goes without it: {missing}")
