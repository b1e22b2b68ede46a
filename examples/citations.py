"""Cited answers over a folder of papers: PDFs, notebooks, Word files and whatever else is in it.

    python citations.py FOLDER "question"

Needs the extra: pip install "rlm-kernel[readers]". The model and its endpoint come from the environment:
RLM_MODEL, OPENAI_API_KEY, OPENAI_BASE_URL.
"""

import sys
from pathlib import Path

from rlm_kernel import RLM

folder, question = Path(sys.argv[1]), sys.argv[2]

with RLM() as rlm:
    answer = rlm.completion(question, folder, cite=True)

print(answer)
for quote in answer.evidence:
    if quote.verified:
        print(f"[{quote.place}] {quote.text}")
    else:
        print(f"[not in the papers: {quote.reason}] {quote.text}")
