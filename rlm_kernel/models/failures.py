"""What can go wrong with one request, told apart by what to do about it: try again, or tell the user.

A `Failure` is a value, not an exception: HTTP libraries hang requests, and with them keys, on theirs, so
nothing of those may stay reachable from what is raised in the end. What a server says is shown with
every secret taken out.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from ..errors import (
    AuthError,
    ContextLengthError,
    EndpointError,
    MalformedReplyError,
    ModelError,
    ModelNotFoundError,
    ModelTimeoutError,
    RateLimitError,
    RequestRefusedError,
    UnreachableError,
)

__all__ = ["Failure", "broken", "malformed", "refused", "timed_out", "unreachable"]

SHOWN_CHARS = 300


@dataclass(frozen=True, slots=True)
class Failure:
    """One request that failed. ``retry_after`` is the wait in seconds that the endpoint asks for."""

    kind: type[ModelError]
    reason: str
    hint: str = ""
    status: int | None = None
    retry: bool = True
    retry_after: float | None = None

    def error(self, model: str, attempts: int) -> ModelError:
        """Return what to raise when there is no further attempt."""
        tries = f" ({attempts} attempts)" if attempts > 1 else ""
        return self.kind(
            f"{model}: {self.reason}{tries}",
            hint=self.hint,
            status=self.status,
            model=model,
            attempts=attempts,
        )


def refused(
    status: int, headers: Mapping[str, str], body: str, *, place: str, secrets: Iterable[str]
) -> Failure:
    """Return the failure that a status other than 200 stands for."""
    said, code = _what_it_says(body)
    said = shorten(said, secrets)
    reason = f"{place} answered {status}" + (f": {said}" if said else "")
    kind, hint = _of_status(status, f"{code} {said}".lower())
    again = status in _PASSING or status >= 500
    if status == 429 and code == "insufficient_quota":
        again, hint = False, "the account's quota is used up: check its plan and billing"
    return Failure(kind, reason, hint, status, again, _retry_after(headers) if again else None)


def _of_status(status: int, said: str) -> tuple[type[ModelError], str]:
    kind, hint = _BY_STATUS.get(status, (RequestRefusedError, "check options and extra_body"))
    if status in _PASSING or status >= 500:
        kind, hint = _BY_STATUS.get(status, (EndpointError, "the endpoint is in trouble: try again later"))
    elif 300 <= status < 400:
        hint = "the endpoint has moved: give its new base URL"
    elif status == 400 and any(words in said for words in _LENGTH_WORDS):
        kind, hint = ContextLengthError, _TOO_LONG
    return kind, hint


_PASSING = (408, 409, 429)
_LENGTH_WORDS = ("context_length", "context length", "context size", "too long")
_TOO_LONG = "the prompt is too long for this model: send smaller pieces"
_BY_STATUS: dict[int, tuple[type[ModelError], str]] = {
    401: (AuthError, "check the key: OPENAI_API_KEY or api_key="),
    402: (RequestRefusedError, "the account has no credit left"),
    403: (AuthError, "this key may not do that: check its permissions"),
    404: (ModelNotFoundError, "check the model's name, and the end of the base URL (often /v1)"),
    413: (RequestRefusedError, _TOO_LONG),
    429: (RateLimitError, "wait, or lower max_concurrency"),
}


def unreachable(reason: str, *, place: str, secrets: Iterable[str]) -> Failure:
    """Return the failure of a request that got no status back."""
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        hint = "its certificate is not trusted here: check the base URL, or SSL_CERT_FILE"
        return Failure(UnreachableError, f"{place}: {shorten(reason, secrets)}", hint, retry=False)
    hint = "check the base URL, the network, and that the endpoint is running"
    return Failure(UnreachableError, f"{place} can't be reached: {shorten(reason, secrets)}", hint)


def broken(reason: str, *, place: str, secrets: Iterable[str]) -> Failure:
    """Return the failure of a reply that broke off after its status."""
    hint = "the connection or the endpoint fails in mid-reply: try again later"
    reason = f"{place} broke off its reply: {shorten(reason, secrets)}"
    return Failure(MalformedReplyError, reason, hint, 200)


def malformed(reason: str, *, place: str, secrets: Iterable[str]) -> Failure:
    """Return the failure of a 200 that is no reply."""
    hint = "check that the base URL is that of an OpenAI-compatible endpoint (often ending in /v1)"
    reason = f"{place} sent no reply: {shorten(reason, secrets)}"
    return Failure(MalformedReplyError, reason, hint, 200)


def timed_out(seconds: float, *, place: str, final: bool = False) -> Failure:
    """Return the failure of a request that took too long."""
    reason = f"no complete reply from {place} within {seconds:.3g} s"
    return Failure(ModelTimeoutError, reason, "allow more time, or ask for less", retry=not final)


def shorten(text: str, secrets: Iterable[str]) -> str:
    """Return ``text`` on one line, secrets taken out, cut to `SHOWN_CHARS`."""
    for secret in secrets:
        text = text.replace(secret, "[secret]")
    text = " ".join(text.split())
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 3] + "..."


def _what_it_says(body: str) -> tuple[str, str]:
    """Return the message and the code in an error body, in any of the forms endpoints use."""
    try:
        data: Any = json.loads(body)
    except (ValueError, RecursionError):
        return body, ""
    code = ""
    for _ in range(3):
        if not isinstance(data, dict):
            break
        code = str(data.get("code") or code)
        data = next((data[name] for name in ("error", "message", "detail") if data.get(name)), body)
    return (data if isinstance(data, str) else json.dumps(data)), code


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Read ``retry-after-ms``, or ``retry-after`` as seconds or as an HTTP date."""
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * scale
        except ValueError:
            try:
                seconds = parsedate_to_datetime(value).timestamp() - time.time()
            except ValueError:
                continue
        if not math.isnan(seconds):
            return max(0.0, seconds)
    return None
