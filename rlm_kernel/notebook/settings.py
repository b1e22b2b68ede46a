"""The settings of a notebook's questions, and where each comes from.

An option of the question wins over what was set in this notebook, that over the environment, the
environment over IPython's configuration file, and all over the default. Keys are no settings: they are in
`Keys`, in memory, each for the one endpoint it was typed for.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ..config import FIELDS, Setting, resolve
from ..errors import ConfigError

__all__ = ["NAMES", "OPENAI", "Keys", "settle"]

_NOT_HERE = ("api_key", "gateway_token", "debug", "wasm_service_url", "state_dir")
NAMES = tuple(field.name for field in FIELDS if field.name not in _NOT_HERE)
"""The settings that a notebook has."""

OPENAI = "https://api.openai.com/v1"
SERVICE = "rlm-kernel"


class Keys:
    """Keys by endpoint: those typed here, and those that the system's keyring has (extra ``keyring``)."""

    def __init__(self) -> None:
        self._typed: dict[str, str] = {}
        self._kept: dict[str, str | None] = {}

    def add(self, base_url: str | None, key: str, *, keep: bool = False) -> None:
        """Take ``key`` for an endpoint, None for OpenAI's; ``keep`` puts it into the keyring, too.

        Raises:
            ConfigError: there is no keyring to keep it in, or it is locked.
        """
        endpoint = base_url or OPENAI
        if keep:
            keyring = _keyring()
            if keyring is None:
                raise ConfigError("there is no keyring here", hint="pip install 'rlm-kernel[keyring]'")
            try:
                keyring.set_password(SERVICE, endpoint, key)
            except Exception as error:  # noqa: BLE001  an edge: backends raise what they like
                raise ConfigError(
                    f"the keyring did not take the key ({type(error).__name__})",
                    hint="%rlm login without --keyring keeps it in memory",
                ) from None
            self._kept.pop(endpoint, None)
        self._typed[endpoint] = key

    @property
    def all(self) -> list[str]:
        """The keys that were typed or found here."""
        return [*self._typed.values(), *(key for key in self._kept.values() if key)]

    def forget(self, base_url: str | None) -> None:
        """Forget the endpoint's key, in the keyring as well."""
        endpoint = base_url or OPENAI
        self._typed.pop(endpoint, None)
        self._kept.pop(endpoint, None)
        if (keyring := _keyring()) is not None:
            with suppress(Exception):  # it has none, or it is locked
                keyring.delete_password(SERVICE, endpoint)

    def typed(self, base_url: str | None) -> str | None:
        """Return the key that was typed for the endpoint, if one was."""
        return self._typed.get(base_url or OPENAI)

    def kept(self, base_url: str | None) -> str | None:
        """Return the key that the keyring has for the endpoint, if it has one; it is asked once."""
        endpoint = base_url or OPENAI
        if endpoint not in self._kept:
            self._kept[endpoint] = None
            if (keyring := _keyring()) is not None:
                with suppress(Exception):  # no backend, or it is locked: as good as none
                    self._kept[endpoint] = keyring.get_password(SERVICE, endpoint)
        return self._kept[endpoint]


def settle(
    options: Mapping[str, Any],
    notebook: Mapping[str, Any],
    file: Mapping[str, Any],
    keys: Keys,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Setting]:
    """Return every setting by name, keys among them, with its origin.

    ``options`` are the question's, ``notebook`` what was set here, ``file`` what IPython was configured with.

    Raises:
        ConfigError: a value is malformed.
    """
    environment = os.environ if environment is None else environment
    surroundings = resolve({}, environment)
    given: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, values in (("configuration file", file), ("this notebook", notebook), ("option", options)):
        for name, value in values.items():
            if value is None:
                continue
            if origin == "configuration file" and surroundings[name].origin.startswith("environment"):
                continue
            given[name], origins[name] = value, origin
    settings = resolve(given, environment)
    endpoint = settings["base_url"].value
    if (typed := keys.typed(endpoint)) is not None:
        settings["api_key"] = Setting("api_key", typed, "typed in this session", secret=True)
    elif settings["api_key"].value is None and (kept := keys.kept(endpoint)) is not None:
        settings["api_key"] = Setting("api_key", kept, "keyring", secret=True)
    return {
        name: replace(setting, origin=origins[name]) if name in origins else setting
        for name, setting in settings.items()
    }


def _keyring() -> Any | None:
    if importlib.util.find_spec("keyring") is None:
        return None
    import keyring  # noqa: PLC0415  an extra, imported on use

    return keyring
