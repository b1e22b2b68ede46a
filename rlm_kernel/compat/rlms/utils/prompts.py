"""The prompts of `rlms` by their names; the words are this package's.

They are templates for ``str.format`` there, so that single braces are written twice.
"""

from __future__ import annotations

from ....prompts import PromptSpec, system_prompt

__all__ = ["RLM_SYSTEM_PROMPT", "filled"]

RLM_SYSTEM_PROMPT = system_prompt(PromptSpec(max_iterations=30)).replace("{", "{{").replace("}", "}}")


def filled(template: str) -> str:
    """Return a system prompt written for `rlms`; one that is no template stays as it is.

    The place for tools stays empty: they are described behind the prompt.
    """
    try:
        return template.format(custom_tools_section="")
    except (KeyError, IndexError, ValueError, AttributeError):
        return template
