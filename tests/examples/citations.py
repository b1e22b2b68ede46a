"""A model that greps pages and cells for the word asked about, and invents one quote of three."""

import re

from rlm_kernel.messages import message_text

LOOK = """
found = {}
for path, text in context.items():
    for line in text.splitlines():
        if "yield" in line:
            found.setdefault(path, []).append(line)
found
"""

ANSWER = """
best = "61 %"
proof = [*found["lab/run.ipynb"], *found["paper.pdf"][-1:], "a yield of 99 %"]
FINAL(f"The best yield is {best}.", quotes=proof)
"""


def prepare(folder):
    import fpdf
    import nbformat

    papers = folder / "papers"
    (papers / "lab").mkdir(parents=True)
    pdf = fpdf.FPDF()
    pdf.set_font("Helvetica", size=12)
    for page in ("On catalysts", "We saw a yield of 48 % at first.", "Later we saw a yield of 61 % twice."):
        pdf.add_page()
        pdf.cell(text=page)
    pdf.output(papers / "paper.pdf")
    v4 = nbformat.v4
    output = v4.new_output("stream", text="mean yield: 0.55\n")
    cells = [v4.new_markdown_cell("# Lab"), v4.new_code_cell("print(report())", outputs=[output])]
    nbformat.write(v4.new_notebook(cells=cells), papers / "lab" / "run.ipynb")
    (papers / "broken.pdf").write_bytes(b"%PDF-1.7 cut off")
    return [str(papers), "What is the best yield?"]


def turn(request):
    texts = [message_text(each) for each in request.messages]
    assert "# Quotes" in texts[0]
    assert "1 PDF as text" in texts[1]
    assert "Refused: broken.pdf" in texts[1]
    code = LOOK if sum(each["role"] == "assistant" for each in request.messages) == 0 else ANSWER
    return f"```repl\n{code.strip()}\n```"


MODELS = {"scripted": turn}


def check(output):
    lines = output.splitlines()
    assert lines[:3] == [
        "The best yield is 61 %.",
        "[lab/run.ipynb, cell 2, line 3] mean yield: 0.55",
        "[paper.pdf, page 3, line 1] Later we saw a yield of 61 % twice.",
    ]
    assert re.fullmatch(r"\[not in the papers: .+\] a yield of 99 %", lines[3])
    assert len(lines) == 4
