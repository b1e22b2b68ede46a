"""A model whose sub-calls need a second attempt once, and whose answer does too."""

import json

from rlm_kernel.messages import message_text

ASK = """
schema = {
    "type": "object",
    "properties": {
        "guest": {"type": "string"},
        "about": {"type": "array", "items": {"enum": ["food", "service", "bill"]}},
    },
    "required": ["guest", "about"],
}
found = llm_query_batched(["Who writes, and what about?\\n" + letter for letter in context], schema=schema)
found
"""


def reader(request):
    text = message_text(request.messages[0])
    assert request.schema["required"] == ["guest", "about"]
    assert '"enum": ["food", "service", "bill"]' in text
    if "Ada Brown" in text:
        return json.dumps({"guest": "Ada Brown", "about": ["food", "service"]})
    if "Stone" in text:
        return "```json\n" + json.dumps({"guest": "B. Stone", "about": []}) + "\n```"
    if len(request.messages) == 1:
        return json.dumps({"guest": "Carl Berg", "about": ["wine", "bill"]})
    said = message_text(request.messages[-1])
    assert "$.about[0]: 'wine' is not one of ['food', 'service', 'bill']" in said
    return json.dumps({"guest": "Carl Berg", "about": ["food", "bill"]})


def turn(request):
    if request.messages[0]["role"] != "system":
        return reader(request)
    last = message_text(request.messages[-1])
    number = sum(each["role"] == "assistant" for each in request.messages)
    if number == 0:
        assert '"title": "Complaint"' in message_text(request.messages[0])
        return f"```repl\n{ASK.strip()}\n```"
    if number == 1:
        return "```repl\nFINAL({each['guest']: each['about'] for each in found if each['about']})\n```"
    assert "Note: your answer was not taken" in last
    assert "$: Input should be a valid list" in last or "$: Input should be a valid array" in last
    return "```repl\nFINAL([each for each in found if each['about']])\n```"


MODELS = {"scripted": turn}


def check(output):
    assert output == "Ada Brown: food, service\nCarl Berg: food, bill\n"
