"""A script written for `rlms` with only its imports changed: `rlm` became `rlm_kernel.compat.rlms`.

The model and its endpoint come from the environment: RLM_MODEL, OPENAI_API_KEY, OPENAI_BASE_URL.
"""

import os

from rlm_kernel.compat.rlms import RLM, TokenLimitExceededError
from rlm_kernel.compat.rlms.logger import RLMLogger

REVIEWS = "\n".join(
    f"review {number}: {'the soup was cold' if number % 7 == 0 else 'a lovely evening'}"
    for number in range(1, 501)
)


def as_percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %"


logger = RLMLogger(log_dir="logs")
rlm = RLM(
    backend="openai",
    backend_kwargs={"model_name": os.environ["RLM_MODEL"]},
    environment="local",
    max_depth=1,
    max_iterations=10,
    max_tokens=200_000,
    custom_tools={"as_percent": {"tool": as_percent, "description": "A share in percent."}},
    logger=logger,
)
try:
    result = rlm.completion(REVIEWS, root_prompt="Which share of the reviews complains about the soup?")
except TokenLimitExceededError as error:
    print("over the limit; so far:", error.partial_answer)
else:
    print(result.response)
    for name, usage in result.usage_summary.model_usage_summaries.items():
        print(f"{name}: {usage.total_calls} calls, sub-calls included")
    with open(logger.log_file_path) as log:
        print(len(log.readlines()), "lines for the viewer of rlms")
finally:
    rlm.close()
