"""Documents for tests, made as people's programs make them."""

from __future__ import annotations

import base64
import io
import zipfile

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x10\0\0\0\x20"


def pdf(*pages, password=None, owner=None):
    """A PDF with these texts on its pages; with ``owner`` alone it may be read, but not changed."""
    import fpdf

    made = fpdf.FPDF()
    made.set_font("Helvetica", size=12)
    if password or owner:
        method = fpdf.enums.EncryptionMethod.AES_256
        made.set_encryption(owner or password, password or "", encryption_method=method)
    for page in pages:
        made.add_page()
        if page:
            made.multi_cell(0, 10, page)
    return bytes(made.output())


def word(change=None):
    """A Word file with a heading, a paragraph and a table; ``change`` may add to it."""
    import docx

    made = docx.Document()
    made.add_heading("Terms")
    made.add_paragraph("The notice period is 90 days.")
    table = made.add_table(2, 2)
    for row, values in enumerate((("item", "price"), ("desk", "120"))):
        for column, value in enumerate(values):
            table.cell(row, column).text = value
    if change:
        change(made)
    target = io.BytesIO()
    made.save(target)
    return target.getvalue()


def notebook(*, version=4):
    """A notebook with text, code, outputs, an error, a picture and an attachment."""
    import nbformat

    v4 = nbformat.v4
    picture = base64.b64encode(PNG).decode()
    made = v4.new_notebook()
    made.cells = [
        v4.new_markdown_cell("# Sales\nof the year", attachments={"a.png": {"image/png": picture}}),
        v4.new_code_cell(
            "print('total')\n1 + 1",
            outputs=[
                v4.new_output("stream", text="total\n"),
                v4.new_output("execute_result", {"text/plain": "2", "text/html": "<b>2</b>"}),
                v4.new_output("display_data", {"image/png": picture, "text/plain": "<Figure>"}),
                v4.new_output(
                    "error", ename="KeyError", evalue="'x'", traceback=["\x1b[31mKeyError\x1b[0m: 'x'"]
                ),
            ],
        ),
        v4.new_raw_cell("as it is"),
    ]
    if version == 3:
        made = nbformat.convert(made, 3)
    return nbformat.writes(made).encode()


def archive(members, *, compression=zipfile.ZIP_DEFLATED):
    """A zip archive of name -> bytes."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", compression) as made:
        for name, data in members.items():
            made.writestr(name, data)
    return target.getvalue()


def encrypted(data):
    """The archive ``data`` with every member marked as encrypted."""
    changed = bytearray(data)
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = changed.find(mark)
        while at >= 0:
            changed[at + offset] |= 1
            at = changed.find(mark, at + 4)
    return bytes(changed)
