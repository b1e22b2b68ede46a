"""How PDF, Word, HTML, notebooks, tables and archives become texts, and which are refused."""

import asyncio
import gc
import logging
import os
import sys
import zipfile

import papers
import pytest

from rlm_kernel.context import collect, reads_files
from rlm_kernel.documents.base import Limits
from rlm_kernel.documents.reading import kind_of
from rlm_kernel.errors import ContextError
from rlm_kernel.files import read_path, read_paths
from rlm_kernel.guest.image import Image
from rlm_kernel.passages import passages

for name in ("pypdf", "cryptography", "docx", "lxml", "fpdf", "pyarrow"):
    pytest.importorskip(name)


@pytest.fixture
def read(tmp_path):
    """Write a file of this name and read it."""

    def write_and_read(name, data, **options):
        path = tmp_path / name
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return read_path(path, **options)

    return write_and_read


@pytest.fixture
def refusal(read):
    """Return why a file of this name is refused."""

    def why(name, data, **options):
        with pytest.raises(ContextError) as caught:
            read(name, data, **options)
        assert name in str(caught.value)
        assert caught.value.hint
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return why


# Formats --------------------------------------------------------------------------------------------


def test_a_pdf(read):
    loaded = read("a.pdf", papers.pdf("The gate is red.", "", "The gate is blue."))
    pages = loaded.value.split("\f")
    assert [page.strip() for page in pages] == ["The gate is red.", "", "The gate is blue."]
    at = loaded.reading.places[""].at
    assert [at(loaded.value.index(word)).number for word in ("red", "blue")] == [1, 3]
    assert loaded.notes == ("1 of 3 pages without text (a scan?): 2",)


def test_a_pdf_by_its_first_bytes(read):
    assert read("upload.bin", papers.pdf("The gate is red.")).value == "The gate is red."


def test_a_pdf_that_may_only_be_read(read, refusal, monkeypatch):
    data = papers.pdf("The gate is red.", owner="x")
    assert read("a.pdf", data).value == "The gate is red."
    pypdf = pytest.importorskip("pypdf")

    def without(reader, password):
        raise pypdf.errors.DependencyError("cryptography is needed")

    monkeypatch.setattr(pypdf.PdfReader, "decrypt", without)
    assert 'needs cryptography: pip install "rlm-kernel[readers]"' in refusal("a.pdf", data)


def test_a_word_file(read):
    assert read("a.docx", papers.word()).value == (
        "Terms\nThe notice period is 90 days.\nitem\tprice\ndesk\t120\n"
    )


def test_insertions_links_controls_and_notes_of_a_word_file(read):
    from docx.opc.constants import RELATIONSHIP_TYPE
    from docx.opc.packuri import PackURI
    from docx.opc.part import Part
    from docx.oxml import parse_xml
    from docx.oxml.ns import nsdecls

    space = nsdecls("w")

    def change(made):
        run = "<w:r><w:t>{}</w:t></w:r>"
        deleted = "<w:del><w:r><w:delText>deleted</w:delText></w:r></w:del>"
        for xml in (
            f"<w:p {space}><w:ins>{run.format('inserted')}</w:ins>{deleted}</w:p>",
            f"<w:sdt {space}><w:sdtContent><w:p>{run.format('controlled')}</w:p></w:sdtContent></w:sdt>",
        ):
            made.element.body.append(parse_xml(xml))
        notes = (
            f"<w:footnotes {space}><w:footnote><w:p>{run.format('a note')}</w:p></w:footnote></w:footnotes>"
        )
        part = Part(PackURI("/word/footnotes.xml"), "application/xml", notes.encode(), made.part.package)
        made.part.relate_to(part, RELATIONSHIP_TYPE.FOOTNOTES)

    text = read("a.docx", papers.word(change)).value
    assert text.endswith("inserted\ncontrolled\na note\n")
    assert "deleted" not in text


def test_a_page_of_html(read):
    page = """<!DOCTYPE html><html><head><title>Prices</title><style>p {}</style></head><body>
      <h1>Our  prices</h1><p>One <b>two</b>
      three<br>four</p><ul><li>a<li>b</ul>
      <table><tr><th>item<th>price<tr><td>desk<td>120</table>
      <pre>  x
   y</pre><script>secret()</script><img alt="a chart"><!-- hidden -->&eacute;</body></html>"""
    assert read("a.html", page).value.split("\n") == [
        *("Prices", "Our prices", "One two three", "four", "a", "b"),
        *("item\tprice", "desk\t120", "  x", "   y", "a charté", ""),
    ]


@pytest.mark.parametrize(
    "data",
    [
        "<p>caf\u00e9</p>".encode(),
        b"\xef\xbb\xbf" + "<p>caf\u00e9</p>".encode(),
        "\ufeff<p>caf\u00e9</p>".encode("utf-16-le"),
        '<meta charset="iso-8859-1"><p>caf\u00e9</p>'.encode("latin-1"),
    ],
)
def test_encodings_of_html(data, read):
    assert read("a.htm", data).value == "caf\u00e9\n"


def test_html_opens_nothing(read, tmp_path):
    (tmp_path / "secret.txt").write_text("SECRET")
    page = (
        f'<!DOCTYPE html [<!ENTITY x SYSTEM "file://{tmp_path}/secret.txt">]><p>&x; text '
        f'<iframe src="file://{tmp_path}/secret.txt"></iframe><object data="http://127.0.0.1:9/"></object></p>'
    )
    assert "SECRET" not in read("a.html", page).value


def test_a_word_file_opens_nothing(read, tmp_path):
    (tmp_path / "secret.txt").write_text("SECRET")
    entity = f'<!DOCTYPE x [<!ENTITY x SYSTEM "file://{tmp_path}/secret.txt">]>'
    with zipfile.ZipFile(tmp_path / "plain.docx", "w") as target:
        target.writestr("x", "")
    (tmp_path / "plain.docx").write_bytes(papers.word())
    with zipfile.ZipFile(tmp_path / "plain.docx") as source:
        members = {each: source.read(each) for each in source.namelist()}
    body = members["word/document.xml"].decode()
    head, _, rest = body.partition("?>")
    members["word/document.xml"] = f"{head}?>{entity}{rest.replace('90 days', '&x;')}".encode()
    assert "SECRET" not in read("evil.docx", papers.archive(members)).value


@pytest.mark.parametrize("version", [3, 4])
def test_a_notebook(version, read):
    loaded = read("a.ipynb", papers.notebook(version=version))
    lines = loaded.value.split("\n")
    assert lines[:3] == ["# %% cell 1, markdown", "# Sales", "of the year"]
    assert "# %% cell 2, code\nprint('total')\n1 + 1\n# %% cell 2, output\ntotal\n2\n[image " in loaded.value
    assert "<Figure>\nKeyError: 'x'\n# %% cell 3, raw\nas it is\n" in loaded.value
    at = loaded.reading.places[""].at
    found = [at(loaded.value.index(word)) for word in ("of the year", "total\n2", "as it is")]
    assert [(part.kind, part.number) for part in found] == [("cell", 1), ("cell", 2), ("cell", 3)]
    if version == 4:
        assert loaded.reading.images == {
            "cell-1-1.png": Image(papers.PNG),
            "cell-2-1.png": Image(papers.PNG),
        }


def test_images_of_notebooks_are_a_context_of_their_own(tmp_path):
    (tmp_path / "a.ipynb").write_bytes(papers.notebook())
    texts, images = collect(tmp_path)
    assert (texts.name, images.name) == ("context", "context_images")
    assert list(images.value) == ["a.ipynb/cell-1-1.png", "a.ipynb/cell-2-1.png"]
    assert "[image cell-2-1.png]" in texts.value["a.ipynb"]
    assert [each.name for each in collect(None, {"x": tmp_path, "x_images": "taken"})] == [
        *("x", "x_images", "x_images_"),
    ]


def test_tables(read, tmp_path):
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"item": ["desk", "lamp"], "price": [120, 30]})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    assert list(read_path(tmp_path / "t.parquet").value["price"]) == [120, 30]
    assert read_path(tmp_path).value == {"t.parquet": '"item","price"\n"desk",120\n"lamp",30\n'}
    assert read("t.csv", "item;price\ncaf\u00e9;3\n".encode("utf-16")).value == "item;price\ncaf\u00e9;3\n"
    assert read("u.csv", "item;price\r\n").value == "item;price\r\n"


def test_an_archive_is_like_a_folder(read, tmp_path):
    members = {
        "b.txt": b"b",
        "in/a.pdf": papers.pdf("The gate is red."),
        "../up.txt": b"up",
        "inner.zip": papers.archive({"deep.html": b"<p>deep"}),
        "image.png": papers.PNG,
        ".git/config": b"hidden",
        "folder/": b"",
    }
    loaded = read("a.zip", papers.archive(members))
    assert loaded.value == {
        "../up.txt": "up",
        "b.txt": "b",
        "in/a.pdf": "The gate is red.",
        "inner.zip/deep.html": "deep\n",
    }
    assert loaded.notes == ("not text, skipped: image.png", "folders skipped: .git")
    assert list(loaded.reading.places) == ["in/a.pdf"]
    assert os.listdir(tmp_path) == ["a.zip"]
    assert "up.txt" not in os.listdir(tmp_path.parent)
    assert "a.zip/inner.zip/deep.html" in read_path(tmp_path).value


def test_what_the_model_is_told(tmp_path):
    (tmp_path / "a.pdf").write_bytes(papers.pdf("The gate is red."))
    (tmp_path / "b.pdf").write_bytes(b"%PDF-1.4 broken")
    description = collect(tmp_path)[0].info().description
    assert "1 PDF as text, pages apart by a form feed" in description
    assert "Refused: b.pdf (corrupt: " in description


def test_pieces_know_where_they_are(tmp_path):
    (tmp_path / "a.pdf").write_bytes(papers.pdf("one", "two"))
    (tmp_path / "b.txt").write_text("text")
    found = {each.path: each for each in passages(collect(tmp_path))}
    assert found["a.pdf"].where == '["a.pdf"]'
    assert found["a.pdf"].part_at("".join(found["a.pdf"].pieces()).index("two")).number == 2
    assert found["b.txt"].part_at is None


def test_kinds():
    assert kind_of("A.PDF", b"") == kind_of("x", b"%PDF-1.7") == "pdf"
    assert kind_of("a.csv", b"a,b") is None
    assert kind_of("a.py", b"import x") is None


def test_files_are_read_beside_the_event_loop(tmp_path):
    assert reads_files(tmp_path)
    assert reads_files(None, {"a": [tmp_path]})
    assert not reads_files("text", {"a": ["text"]})


# Refusals -------------------------------------------------------------------------------------------

SMALL = Limits(
    file_bytes=300_000,
    text_chars=1000,
    pages=2,
    members=30,
    nesting=2,
    unpacked_bytes=400_000,
    total_chars=1500,
)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.pdf", b"%PDF-1.4 broken", "corrupt"),
        ("a.pdf", papers.pdf("text")[:500], "corrupt"),
        ("a.pdf", papers.pdf("text", password="x"), "encrypted"),
        ("a.pdf", papers.pdf("", ""), "its 2 pages hold no text (a scan?)"),
        ("a.docx", b"PK\x03\x04 broken", "corrupt"),
        ("a.docx", b"\xd0\xcf\x11\xe0 old or encrypted", "encrypted, or of the older format"),
        ("a.docx", papers.archive({"x.txt": b"no Word file"}), "corrupt"),
        ("a.docx", papers.word()[:3000], "corrupt"),
        ("a.html", "<script>only()</script>", "holds no text"),
        ("a.html", "<div>" * 10_000 + "deep", "nested too deeply"),
        ("a.ipynb", b"{", "no notebook"),
        ("a.ipynb", b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}', "has no cells"),
        ("a.ipynb", b"[" * 200_000, "nested too deeply"),
        ("a.parquet", b"PAR1 broken", "corrupt"),
        ("a.arrow", b"ARROW1 broken", "corrupt"),
        ("a.zip", b"no zip", "corrupt"),
        ("a.zip", papers.archive({"a.txt": b"text"})[:60], "corrupt"),
        ("a.zip", papers.encrypted(papers.archive({"a.txt": b"text"})), "encrypted"),
    ],
)
def test_a_refused_file(name, data, reason, refusal):
    assert f"{name} can't be read: {reason}" in refusal(name, data)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.pdf", papers.pdf("1", "2", "3"), "3 pages, more than the 2"),
        ("a.pdf", papers.pdf("words " * 300), "more than 1,000 characters of text"),
        ("a.html", "<p>" + "x" * 2000, "more than 1,000 characters of text"),
        ("a.html", "<p>" + "x" * 400_000, "more than the 300,000 bytes"),
        ("a.ipynb", papers.notebook().replace(b"as it is", b"x" * 2000), "more than 1,000 characters"),
        ("a.zip", papers.archive({f"{n}.txt": b"x" for n in range(31)}), "31 members, more than the 30"),
        (
            "a.docx",
            papers.archive({"word/document.xml": b"<w>" + b" " * 400_000}),
            "unpacks to more than",
        ),
    ],
)
def test_an_enormous_file(name, data, reason, refusal):
    assert reason in refusal(name, data, limits=SMALL)


def test_an_enormous_text_of_a_word_file(refusal):
    data = papers.word(lambda made: made.add_paragraph("x" * 2000))
    assert "more than 1,000 characters" in refusal("a.docx", data, limits=Limits(text_chars=1000))


def test_a_table_that_unpacks_enormously(refusal, tmp_path):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"a": ["x" * 1000] * 2000}), tmp_path / "made")
    assert "unpacks to more than" in refusal("a.parquet", (tmp_path / "made").read_bytes(), limits=SMALL)


def test_a_document_that_takes_too_long(refusal):
    limits = Limits(seconds=-1)
    assert "took longer than" in refusal("a.pdf", papers.pdf("1"), limits=limits)


def nested(depth, data=b"deep"):
    for level in range(depth):
        data = papers.archive({f"{level}.zip" if level else "deep.txt": data})
    return data


def test_bombs_are_refused_by_name_and_the_others_go_on(read):
    members = {
        "bomb.txt": b"0" * 20_000_000,
        "deep.zip": nested(6),
        "good.txt": b"good",
        "broken.pdf": b"%PDF-1.4",
        "locked.zip": papers.encrypted(papers.archive({"a.txt": b"text"})),
    }
    loaded = read("a.zip", papers.archive(members))
    assert loaded.value == {"good.txt": "good"}
    names = [line.partition(" (")[0] for line in loaded.reading.refused]
    assert names == ["bomb.txt", "broken.pdf", "deep.zip/5.zip/4.zip", "locked.zip"]
    assert "a bomb: compressed 1," in loaded.reading.refused[0]
    assert "nested more than 3 deep" in loaded.reading.refused[2]


def test_what_is_unpacked_counts_across_files(read):
    part = os.urandom(130_000).hex().encode()[:150_000]
    members = {"a.txt": part, "b.zip": papers.archive({"b.txt": part}), "c.txt": part}
    limits = Limits(unpacked_bytes=400_000)
    loaded = read("a.zip", papers.archive(members, compression=zipfile.ZIP_STORED), limits=limits)
    assert list(loaded.value) == ["a.txt", "c.txt"] or list(loaded.value) == ["a.txt", "b.zip/b.txt"]
    assert all("unpacks to more than 400,000 bytes in all" in line for line in loaded.reading.refused)


def test_text_counts_across_files(tmp_path):
    for name in ("a.html", "b.html", "c.html"):
        (tmp_path / name).write_text("<p>" + "x" * 900)
    loaded = read_path(tmp_path, limits=SMALL)
    assert list(loaded.value) == ["a.html"]
    assert [line.partition(" (")[0] for line in loaded.reading.refused] == ["b.html", "c.html"]


def test_a_member_that_lies_about_its_size(read):
    data = bytearray(papers.archive({"a.txt": b"x" * 5000, "b.txt": b"good"}))
    at = data.find(b"PK\x01\x02")
    data[at + 24 : at + 28] = (10).to_bytes(4, "little")
    loaded = read("a.zip", bytes(data))
    assert loaded.value == {"b.txt": "good"}
    assert loaded.reading.refused[0].startswith("a.txt (corrupt")


def test_a_directory_of_millions_is_not_listed(refusal):
    data = bytearray(papers.archive({"a.txt": b"text"}))
    at = data.rfind(b"PK\x05\x06")
    data[at + 12 : at + 16] = (2**31).to_bytes(4, "little")
    assert "far too many members" in refusal("a.zip", bytes(data))


def test_two_members_of_one_name(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as target:
        target.writestr("a.txt", "first")
        with pytest.warns(UserWarning, match="Duplicate"):
            target.writestr("a.txt", "second")
    loaded = read_path(tmp_path / "a.zip")
    assert loaded.value == {"a.txt": "first"}
    assert loaded.reading.refused == ("a.txt (a second file of that name)",)


def test_names_in_messages_can_do_no_harm(read):
    name = "x\n```\x1b[31m" + "y" * 300 + ".pdf"
    loaded = read("a.zip", papers.archive({name: b"%PDF-", "b.txt": b"b"}))
    (line,) = loaded.reading.refused
    assert line.isprintable()
    assert "```" not in line
    assert len(line) < 300


def test_named_files_among_others(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, data in {"a.pdf": papers.pdf("red"), "b.pdf": b"%PDF-", "c.txt": b"c"}.items():
        (tmp_path / name).write_bytes(data)
    loaded = read_paths(["a.pdf", "b.pdf", "c.txt", "*.pdf"])
    assert loaded.value == {"a.pdf": "red", "c.txt": "c"}
    assert {line.partition(" (")[0] for line in loaded.reading.refused} == {"b.pdf"}


def test_a_folder_in_which_all_is_refused(tmp_path):
    (tmp_path / "b.pdf").write_bytes(b"%PDF-")
    with pytest.raises(ContextError, match="no text files in") as caught:
        read_path(tmp_path)
    assert "Refused: b.pdf" in caught.value.hint


def test_many_refusals_are_counted(tmp_path):
    for number in range(60):
        (tmp_path / f"{number:02}.pdf").write_bytes(b"%PDF-")
    (tmp_path / "a.txt").write_text("a")
    told = read_path(tmp_path).reading.refusals()
    assert told.startswith("Refused: 00.pdf (corrupt")
    assert told.endswith("; and 40 more")


# The extra ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data", "library"),
    [
        ("a.pdf", papers.pdf("text"), "pypdf"),
        ("a.docx", papers.word(), "python-docx"),
        ("a.parquet", b"PAR1", "pyarrow"),
    ],
)
def test_without_the_extra(name, data, library, read, refusal, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, {"python-docx": "docx"}.get(library, library), None)
    told = f'needs {library}: pip install "rlm-kernel[readers]"'
    assert told in refusal(name, data)
    (tmp_path / "b.txt").write_text("b")
    loaded = read_path(tmp_path)
    assert loaded.value == {"b.txt": "b"}
    assert told in loaded.reading.refused[0]


def test_html_without_the_extra_is_its_source(read, monkeypatch):
    monkeypatch.setitem(sys.modules, "lxml.etree", None)
    loaded = read("a.html", "<p>text")
    assert loaded.value == "<p>text"
    assert 'pip install "rlm-kernel[readers]"' in loaded.notes[0]


def test_broken_files_say_nothing_on_the_terminal(read, capfd):
    data = papers.pdf("The gate is red.")
    at = data.rfind(b"startxref")
    read("a.pdf", data[:at] + b"startxref\n7\n%%EOF")
    gc.collect()
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("pypdf").handlers


def test_reading_in_another_thread(tmp_path):
    (tmp_path / "a.pdf").write_bytes(papers.pdf("The gate is red."))
    (context,) = asyncio.run(asyncio.to_thread(collect, tmp_path / "a.pdf"))
    assert context.value == "The gate is red."
