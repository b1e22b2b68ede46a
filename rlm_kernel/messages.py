"""Chat messages in the form of the OpenAI protocol."""

from __future__ import annotations

from typing import Literal, TypedDict

__all__ = ["ImagePart", "Message", "Part", "TextPart", "message_text"]


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
