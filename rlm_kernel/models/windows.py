"""How many tokens a model takes: from the price list of ``genai-prices``, which knows that too."""

from __future__ import annotations

from .prices import price_list

__all__ = ["listed_window"]


def listed_window(model: str, provider_url: str | None = None) -> int | None:
    """Return the window of ``model`` at this endpoint in tokens, or None if it is not known."""
    listed = price_list()
    if listed is None:
        return None
    from genai_prices.data_snapshot import get_snapshot  # noqa: PLC0415  an extra, imported on use

    try:
        _, found = get_snapshot().find_provider_model(model, None, None, provider_url)
    except LookupError:
        return None
    window = found.context_window
    return window if isinstance(window, int) and window > 0 else None
