"""Answers and replies as Python values: a list of pydantic models out of letters, each read by a sub-model.

The model and its endpoint come from the environment: RLM_MODEL, OPENAI_API_KEY, OPENAI_BASE_URL.
"""

from typing import Literal

from pydantic import BaseModel

from rlm_kernel import RLM

LETTERS = [
    "We waited an hour, and then the soup was cold. Ada Brown",
    "Lovely evening, thank you! B. Stone",
    "The duck was dry, the wine was fine, the bill was wrong. Carl Berg",
]


class Complaint(BaseModel):
    """What a guest is unhappy about."""

    guest: str
    about: list[Literal["food", "service", "bill"]]


with RLM() as rlm:
    answer = rlm.completion("Who complains, and about what?", LETTERS, output=list[Complaint])

for complaint in answer.value:
    print(f"{complaint.guest}: {', '.join(complaint.about)}")
