"""A model that groups the notebook's own DataFrame, and answers from what it finds."""

from rlm_kernel.messages import message_text


def turn(request):
    texts = [message_text(each) for each in request.messages]
    assert "context: DataFrame, 300,000 rows x 2 columns" in texts[1]
    if len(texts) < 4:
        return '```repl\nby_region = context.groupby("region")["units"].sum()\nby_region\n```'
    assert "west" in texts[-1]
    return "```repl\nFINAL(f'{by_region.idxmax()}, {by_region.max():,} units')\n```"


MODELS = {"scripted": turn}


def check(output):
    assert "west, 15,000,050,000 units" in output
    assert "<variables of the model: by_region>" in output
    assert "False 300000" in output
    assert output.splitlines()[-2:] == ["run.ipynb", "run.context.gz"]
