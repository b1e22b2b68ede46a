"""Chat messages in the form of the OpenAI protocol."""

from __future__ import annotations

from typing import Literal, TypedDict

__all__ = ["ImagePart", "Message", "Part", "TextPart", "message_text", "sendable"]


class TextPart(TypedDict):
    """A piece of text in a message of several parts."""

    type: Literal["text"]
    text: str


class ImagePart(TypedDict):
    """An image in a message; ``image_url["url"]`` is a ``data:`` URL."""

    type: Literal["image_url"]
    image_url: dict[str, str]


Part = TextPart | ImagePart


class Message(TypedDict):
    """One chat message; ``content`` is text, or parts where an image is among them."""

    role: Literal["system", "user", "assistant"]
    content: str | list[Part]


def message_text(message: Message) -> str:
    """Return the text of a message, its parts joined by newlines, images left out."""
    content = message["content"]
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part["type"] == "text")


def sendable(content: str | list[Part]) -> str | list[Part]:
    """Return ``content`` with lone surrogates replaced: they are text in Python, but not in UTF-8."""
    if isinstance(content, str):
        return _encodable(content)
    return [
        TextPart(type="text", text=_encodable(part["text"])) if part["type"] == "text" else part
        for part in content
    ]


def _encodable(text: str) -> str:
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text
