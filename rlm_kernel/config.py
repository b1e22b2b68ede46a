"""Every setting that can come from the environment: its variables, its default, where its value came from.

One rule for all: an option wins over the environment, the environment over the default; among variables
``OPENAI_*`` wins over ``RLM_*``, and both over the names of the older rlm-minimal. A variable that is set
but empty counts as not set. Nothing but `FIELDS` lists settings: command line, doctor and ``.env-example``
all follow it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from . import page
from .errors import ConfigError

__all__ = ["FIELDS", "Field", "Setting", "mask", "resolve"]

DEFAULT_MODEL = "gpt-5"
DEFAULT_SUB_MODEL = "gpt-5-mini"
DEFAULT_REPL = "lite" if page.here() else "local"


@dataclass(frozen=True, slots=True)
class Field:
    """One setting that may be given; ``parse`` raises ValueError with what it expects."""

    name: str
    variables: tuple[str, ...]
    about: str
    parse: Callable[[Any], Any]
    default: Any = None
    secret: bool = False


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as resolved.

    ``origin`` is ``option``, ``environment variable NAME``, ``default`` or ``not set``.
    """

    name: str
    value: Any
    origin: str
    secret: bool = False

    @property
    def shown(self) -> str:
        """The value as it may be printed: keys masked, passwords in URLs left out."""
        if self.value is None:
            return "none"
        if self.secret:
            return mask(str(self.value))
        return _without_password(str(self.value))

    def __repr__(self) -> str:
        return f"Setting(name={self.name!r}, value={self.shown}, origin={self.origin!r})"


def mask(key: str) -> str:
    """Return ``key`` as it may be printed: its last four characters, and none of a short key's."""
    if len(key) <= 12:
        return "****"
    return f"{'sk-' if key.startswith('sk-') else ''}...{key[-4:]}"


def resolve(
    options: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None
) -> dict[str, Setting]:
    """Return every setting by name. An option that is None counts as not given.

    The default models are OpenAI's, so they hold only where no other ``base_url`` is given. A sub-model
    that is not given is None: the root model does its work.

    Raises:
        ConfigError: a value is malformed, or an option is unknown.
    """
    options = options or {}
    environment = os.environ if environment is None else environment
    unknown = set(options) - {field.name for field in FIELDS}
    if unknown:
        raise ConfigError(
            f"unknown setting {', '.join(sorted(unknown))}",
            hint=f"settings are {', '.join(field.name for field in FIELDS)}",
        )
    settings = {field.name: _resolve_one(field, options, environment) for field in FIELDS}
    if settings["model"].value is None and settings["base_url"].value is None:
        settings["model"] = Setting("model", DEFAULT_MODEL, "default")
        if settings["sub_model"].value is None:
            settings["sub_model"] = Setting("sub_model", DEFAULT_SUB_MODEL, "default")
    return settings


def _resolve_one(field: Field, options: Mapping[str, Any], environment: Mapping[str, str]) -> Setting:
    given = options.get(field.name)
    if given is not None:
        value, where = given, field.name
        origin = "option"
    else:
        variable = next((name for name in field.variables if environment.get(name, "").strip()), None)
        if variable is None:
            origin = "not set" if field.default is None else "default"
            return Setting(field.name, field.default, origin, field.secret)
        value, where = environment[variable].strip(), variable
        origin = f"environment variable {variable}"
    try:
        return Setting(field.name, field.parse(value), origin, field.secret)
    except ValueError as error:
        shown = mask(str(value)) if field.secret else repr(_without_password(str(value)))
        raise ConfigError(f"{where} is {shown}", hint=f"give {error}") from None


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a text that is not empty")
    return value.strip()


def _key(value: Any) -> str:
    text = _text(value)
    # A header can't carry these, and the HTTP library's own complaint would quote the key.
    if not text.isascii() or any(c.isspace() or not c.isprintable() for c in text):
        raise ValueError("a key of printable ASCII characters without spaces")
    return text


def _url(value: Any) -> str:
    expected = "a URL such as https://host/v1 or http://127.0.0.1:8000/v1"
    text = _text(value)
    try:
        parts = urlsplit(text)
        _ = parts.port  # the property checks it
    except ValueError:
        raise ValueError(expected) from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or any(c.isspace() for c in text):
        raise ValueError(expected)
    return text.rstrip("/")


def _whole(least: int) -> Callable[[Any], int]:
    expected = f"a whole number of at least {least}"

    def parse(value: Any) -> int:
        exact = isinstance(value, (int, str)) and not isinstance(value, bool)
        try:
            number = int(value) if exact else least - 1
        except ValueError:
            raise ValueError(expected) from None
        if number < least:
            raise ValueError(expected)
        return number

    return parse


def _amount(unit: str) -> Callable[[Any], float]:
    expected = f"a number of {unit} above 0"

    def parse(value: Any) -> float:
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(expected) from None
        if not (math.isfinite(number) and number > 0):
            raise ValueError(expected)
        return number

    return parse


def _limit(unit: str) -> Callable[[Any], float | None]:
    amount = _amount(unit)

    def parse(value: Any) -> float | None:
        if isinstance(value, str) and value.lower() == "none":
            return None
        try:
            return amount(value)
        except ValueError as error:
            raise ValueError(f"{error}, or none for no limit") from None

    return parse


def _one_of(*words: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        word = str(value).lower()
        if word not in words:
            raise ValueError(" or ".join(words))
        return word

    return parse


def _switch(value: Any) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False}
    word = str(value).lower()
    if word not in words:
        raise ValueError("1 or 0")
    return words[word]


def _without_password(text: str) -> str:
    """Return ``text``, a URL's user, password and query, which may hold a token, left out where it is one."""
    if "//" not in text or not ("@" in text or "?" in text):
        return text
    try:
        parts = urlsplit(text)
    except ValueError:
        return "(a malformed URL)"
    return urlunsplit(
        parts._replace(netloc=parts.netloc.rpartition("@")[2], query="..." if parts.query else "")
    )


FIELDS: tuple[Field, ...] = (
    Field(
        "api_key",
        ("OPENAI_API_KEY", "RLM_API_KEY", "LLM_API_KEY"),
        "Key of the model endpoint. Local servers need none.",
        _key,
        secret=True,
    ),
    Field(
        "base_url",
        ("OPENAI_BASE_URL", "RLM_BASE_URL", "LLM_BASE_URL"),
        "An OpenAI-compatible endpoint. Not set: OpenAI's own.",
        _url,
    ),
    Field(
        "model",
        ("RLM_MODEL", "LLM_MODEL"),
        f"The root model. Not set: {DEFAULT_MODEL}, where no other endpoint is given.",
        _text,
    ),
    Field(
        "sub_model",
        ("RLM_SUB_MODEL",),
        f"The model of sub-calls. Not set: the root model ({DEFAULT_SUB_MODEL} beside {DEFAULT_MODEL}).",
        _text,
    ),
    Field(
        "api",
        ("RLM_API",),
        "How the endpoint is asked: chat (completions) or responses, where it offers that.",
        _one_of("chat", "responses"),
        "chat",
    ),
    Field(
        "direct_below",
        ("RLM_DIRECT_BELOW",),
        "Estimated tokens of question and context below which one plain call is tried. Not set: never.",
        _whole(1),
    ),
    Field("repl", ("RLM_REPL",), "Where the code of the root model runs.", _text, DEFAULT_REPL),
    Field(
        "gateway_url",
        ("RLM_GATEWAY_URL", "JUPYTER_GATEWAY_URL"),
        "With the repl `gateway`: the Kernel Gateway or Jupyter Server whose kernels run it.",
        _url,
    ),
    Field(
        "gateway_token",
        ("RLM_GATEWAY_TOKEN", "JUPYTER_GATEWAY_AUTH_TOKEN"),
        "Its token. Sent in a header only.",
        _key,
        secret=True,
    ),
    Field(
        "kernel_name",
        ("RLM_KERNEL_NAME",),
        "With the repl `gateway`: the kernelspec there. Not set: its default one.",
        _text,
    ),
    Field(
        "gateway_insecure",
        ("RLM_GATEWAY_INSECURE",),
        "1: plain http to a gateway on another machine, where others can read the token and the contexts.",
        _switch,
        default=False,
    ),
    Field(
        "state_dir",
        ("RLM_STATE_DIR",),
        "Where named sessions are recorded. Not set: where this system's programs keep such things.",
        _text,
    ),
    Field("max_depth", ("RLM_MAX_DEPTH", "MAX_DEPTH"), "How deep runs may call further runs.", _whole(0), 1),
    Field(
        "max_iterations",
        ("RLM_MAX_ITERATIONS", "MAX_ITERATIONS"),
        "Turns of the root model at most.",
        _whole(1),
        20,
    ),
    Field(
        "cell_timeout",
        ("RLM_CELL_TIMEOUT",),
        "Seconds a cell may take; none for no limit.",
        _limit("seconds"),
        120.0,
    ),
    Field("budget_usd", ("RLM_BUDGET_USD",), "Cap on the cost of a run, in USD.", _amount("USD")),
    Field(
        "budget_tokens", ("RLM_BUDGET_TOKENS",), "Cap on the tokens of a run, input and output.", _whole(1)
    ),
    Field("budget_calls", ("RLM_BUDGET_CALLS",), "Cap on the model requests of a run.", _whole(1)),
    Field(
        "budget_seconds", ("RLM_BUDGET_SECONDS",), "Cap on the time of a run, in seconds.", _amount("seconds")
    ),
    Field(
        "budget_errors",
        ("RLM_BUDGET_ERRORS",),
        "Turns that may fail one after the other before a run ends.",
        _whole(1),
    ),
    Field("debug", ("RLM_DEBUG",), "1: the command line shows tracebacks.", _switch, default=False),
    Field(
        "wasm_service_url",
        ("WASM_SERVICE_URL",),
        "rlm-minimal's name for a gateway with WebAssembly kernels, where RLM_GATEWAY_URL is not set.",
        _url,
    ),
)
"""Every setting, in the order in which they are shown."""
