"""What is read of files that are no plain text, what is passed over, and what is said of it."""

import gzip
import io
import json
import os
import sys
import time
import zipfile
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
from command import command
from fuzz import SLOW
from hypothesis import given
from hypothesis import strategies as st
from unmeasured import unmeasured

from embed import formats
from embed.formats import html, markup
from embed.formats.generated import is_generated
from embed.formats.text import INFLATED
from toast import cancel

PAGE = """<!DOCTYPE html>
<html><head><title>Zoo &amp; park</title>
<script>var hidden = "crocodile";</script><style>p { color: red }</style>
<body><nav><a href="x">Home</a> <a href="y">About</a></nav>
<h2>The giraffe</h2>
<p>A giraffe is
<b>tall</b>er&nbsp;than a&#32;zebra.</p><p>Second block.</p>
<pre>
  kept   blanks
</pre>
<ul><li>one</li>
<li>two <img src="z.png" alt="a zebra"></li></ul>
<table><tr><td>left</td><td>right</td></tr></table>
<!-- a comment -->
<template>gone</template>
</body></html>
"""
LINES = {
    1: "# Zoo & park", 3: "Home About", 4: "## The giraffe", 5: "A giraffe is", 6: "taller than a zebra. Second block.",
    8: "  kept   blanks", 10: "one", 11: "two a zebra", 12: "left right",
}  # fmt: skip


def archive(**members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, text in members.items():
            file.writestr(zipfile.ZipInfo(name), text)
    return out.getvalue()


def zipped(data):
    """The same bytes at every second: a test's name has them."""
    return gzip.compress(data, mtime=0)


W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
DOCX = archive(**{
    "[Content_Types].xml": "<x/>",
    "word/document.xml": f"<w:document {W}><w:body>"
    '<w:p><w:pPr><w:pStyle w:val="Heading2"/></w:pPr><w:r><w:t>Giraffes</w:t></w:r></w:p>'
    '<w:p><w:r><w:t xml:space="preserve">A </w:t></w:r><w:r><w:t>tall</w:t><w:tab/><w:t>one &amp; more</w:t></w:r>'
    "<w:del><w:r><w:delText>crocodile</w:delText></w:r></w:del></w:p>"
    "<w:tbl><w:tr><w:tc><w:p><w:r><w:t>cell</w:t></w:r></w:p></w:tc></w:tr></w:tbl></w:body></w:document>",
    "word/footnotes.xml": f"<w:footnotes {W}><w:p><w:r><w:t>a note</w:t></w:r></w:p></w:footnotes>",
})  # fmt: skip
ODT = archive(**{
    "mimetype": "application/vnd.oasis.opendocument.text",
    "content.xml": '<o xmlns:text="t" xmlns:office="f"><office:text><text:h text:outline-level="3">Giraffes</text:h>'
    "<text:p>A<text:s/>tall <text:span>one</text:span></text:p><text:tracked-changes><text:p>crocodile</text:p>"
    "</text:tracked-changes></office:text></o>",
})  # fmt: skip
EPUB = archive(**{
    "mimetype": "application/epub+zip",
    "META-INF/container.xml": '<c><rootfiles><rootfile full-path="OPS/book.opf"/></rootfiles></c>',
    "OPS/book.opf": '<package><manifest><item id="b" href="b%20b.xhtml"/><item id="a" href="a.xhtml"/></manifest>'
    '<spine><itemref idref="b"/><itemref idref="a"/></spine></package>',
    "OPS/a.xhtml": "<html><body><h1>Second</h1><p>crocodile</p></body></html>",
    "OPS/b b.xhtml": "<html><body><h1>First</h1><p>giraffe</p></body></html>",
})  # fmt: skip
NOTEBOOK = {
    "cells": [
        {"cell_type": "markdown", "source": ["# Giraffes\n", "are tall"]},
        {"cell_type": "code", "source": "height = 5\n", "outputs": [{"data": {"image/png": "iVBOR"}}]},
        {"cell_type": "code", "source": []},
    ],
    "metadata": {"language_info": {"name": "python"}}, "nbformat": 4,
}  # fmt: skip
MAIL = (
    b"From: Ann <ann@example.org>\r\nTo: bob@example.org\r\nSubject: =?utf-8?q?Caf=C3=A9?= and\r\n giraffes\r\n"
    b'MIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary="x"\r\n\r\n--x\r\n'
    b"Content-Type: text/html\r\n\r\n<p>crocodile</p>\r\n--x\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Transfer-Encoding: base64\r\n\r\nYSB0YWxsIGdpcmFmZmU=\r\n--x--\r\n"
)


def pdf(*pages):
    """A file with these lines, a page each."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b"", b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    kids = []
    for text in pages:
        stream = f"BT /F1 12 Tf 72 700 Td ({text}) Tj ET".encode()
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream))
        page = "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R >> >>"
        objects.append(f"{page} /Contents {len(objects)} 0 R >>".encode())
        kids.append(f"{len(objects)} 0 R")
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>".encode()
    out, places = bytearray(b"%PDF-1.4\n%\0\xff\n"), []
    for i, content in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (i, content)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"xref\n0 %d\n0000000000 65535 f \n%strailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (
        len(objects) + 1, table, len(objects) + 1, len(out),
    )  # fmt: skip
    return bytes(out)


def text(path, data):
    return formats.read(path, data).text


# ---------------------------------------------------------------- each kind


def test_html_keeps_the_lines_of_its_source():
    found = formats.read("a.html", PAGE.encode())
    rows = found.text.split("\n")
    assert {i: row for i, row in enumerate(rows) if row} == LINES
    assert {i for i, joint in found.joints.items() if joint == 2} == {1, 4}
    assert {3, 5, 10, 11, 12} <= {i for i, joint in found.joints.items() if joint == 1}
    assert not any(word in found.text for word in ("crocodile", "color", "comment", "gone", "<"))


def test_a_minified_page_gets_a_line_for_each_block():
    page = PAGE.replace("<pre>\n  kept   blanks\n</pre>", "").replace("\n", " ")
    rows = [row for row in formats.read("a", page.encode()).text.split("\n") if row]
    assert rows[:4] == ["# Zoo & park", "Home About", "## The giraffe", "A giraffe is taller than a zebra."]
    assert "Second block." in rows and "left" in rows


@pytest.mark.parametrize(
    ("page", "found"),
    [
        ("<html><head><title>t</title><p>no end of head", "# t no end of head"),
        ("<p>one<script>x</p>", "one"),
        ("a < b && c", "a < b && c"),
        ("<head><meta charset=x><link></head>text", "text"),
        ("<svg><title>no</title></svg>yes", "yes"),
        ("<title>t</title>text", "# t text"),
        ("<svg><svg></svg>no</svg>yes", "yes"),
        ("<p>hi <![foo[bar]]>you", "hi you"),
        ("<a href='x>y' b=\"<p>\">one</a><br/>two<!--no--!>", "one two"),
        ("<p>one<!-- never closed <p>two", "one"),
        ("one <b never closed", "one <b never closed"),
        ("<script>'</p>'</SCRIPT >yes<img alt=\"a>b\">", "yes a>b"),
        ("a&#" + "9" * 5000 + ";b&#xd800;&lt;", "a\ufffdb\ufffd<"),
        ("", ""),
    ],
)
def test_html_as_it_comes(page, found):
    assert " ".join(html.extracted(page).text.split()) == found


def test_html_in_its_own_encoding():
    page = '<html><meta charset="koi8-r"><p>\u043c\u043e\u0441\u043a\u0432\u0430'
    assert formats.read("a.htm", page.encode("koi8-r")).text.strip() == "\u043c\u043e\u0441\u043a\u0432\u0430"
    page = '<html><meta charset="gb2312"><p>\u9555'  # which only GBK has
    assert formats.read("a.htm", page.encode("gbk")).text.strip() == "\u9555"


@pytest.mark.parametrize("name", ["unicode_escape", "undefined", "rot13", "hex", "utf-16", "utf-7", "idna", "no-such"])
def test_what_is_no_encoding_of_text_in_bytes_says_nothing(name):
    found = formats.read("a.html", f"<meta charset={name}><p>caf".encode() + b"\xe9 \\ud800")
    assert (found.text.strip(), found.latin) == ("caf\u00e9 \\ud800", True)


PIECES = [
    "<p>", "</p>", "<b>", "</b>", "one", " ", "\n", "<!-- x -->", "<br/>", "<h2>", "</h2>", "&amp;", "a<b", "<pre>",
    "&", "</pre>", '<a href="x>y">', "<script>if (a<b) 'x'</script>", "<li>", "<img alt='z'>", "<svg>", "</svg>",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=30))
def test_tags_are_where_the_library_finds_them(pieces):
    """What is well-formed, or nearly so, is cut as Python's own parser does it."""
    page, rows = "".join(pieces) + "\n", []

    class Theirs(HTMLParser):
        def handle_data(self, data):
            if self.cdata_elem is None:
                rows.append(data)

        def handle_starttag(self, tag, attrs):
            rows.append((tag, dict(attrs).get("alt") or ""))

        def handle_endtag(self, tag):
            rows.append((f"/{tag}", ""))

    theirs = Theirs()
    theirs.feed(page)
    theirs.close()

    def joined(parts):
        """The tags, and all text between two of them as one."""
        text = "".join(part if isinstance(part, str) else f"\0{part}\0" for part in parts)
        return [part for part in text.split("\0") if part]

    ours = [text or (tag, markup.attribute(inside, "alt")) for _, text, tag, inside in markup.parts(page)]
    assert joined(ours) == joined(rows)


MEGABYTE = {
    "tags that close nothing": "<svg>" + "<g>" * 130_000 + "</b>" * 130_000, "comments": "<!--" * 250_000,
    "tags": "<a " * 330_000, "end tags": "</a " * 250_000, "sections": "<![CDATA[" * 110_000,
    "sections that end": "<![CDATA[>" * 100_000, "quotes": '<p x="> " ' * 100_000, "values": "<p " + '="' * 500_000,
    "scripts": "<script></scriptx" * 60_000, "references": "&#" * 500_000, "digits": "&#" + "9" * 1_000_000,
    "blanks": "<p" + " " * 1_000_000,
}  # fmt: skip
DEEP = b"".join(b'Content-Type: multipart/mixed; boundary="b%d"\n\n--b%d\n' % (i, i) for i in range(100))
LARGE = {
    **{f"{name}.html": text.encode() for name, text in MEGABYTE.items()},
    "to.eml": b"To: " + b"a@b, " * 200_000 + b"\n\nx",
    "parameters.eml": b"Content-Type: text/plain;" + b'";' * 500_000 + b"\n\nx",
    "headers.eml": b"X: y\n" * 100_000 + b"\n\nx", "deep.eml": DEEP + b"\n" + b"x\n" * 500_000,
    "parts.eml": b"Content-Type: multipart/mixed; boundary=x\n\n" + b"--x\n\nhi\n" * 30_000,
    "members.gz": zipped(b"") * 50_000 + zipped(b"x"),
    "elements.fodt": b"<o>" + b"<p/>" * 1_100_000 + b"</o>",
    "attributes.fodt": b"<o " + b" ".join(b"a%d='x'" % i for i in range(90_000)) + b"/>",
    "nested.fodt": b"<p>" * 100_000 + b"</p>" * 100_000,
}  # fmt: skip


@pytest.mark.parametrize("name", LARGE)
def test_no_file_takes_the_square_of_its_length(name):
    with unmeasured():
        began = time.process_time()
        try:
            formats.read(name, LARGE[name])
        except formats.Unreadable as error:
            assert "too many" in str(error) or "elements" in str(error)
        assert time.process_time() - began < SLOW


def test_a_long_file_can_be_called_off(monkeypatch):
    def check():
        if len(asked) == 5:
            raise cancel.Cancelled
        asked.append(1)

    for name in ("tags that close nothing.html", "parts.eml", "members.gz", "elements.fodt"):
        asked = []
        monkeypatch.setattr(cancel.here, "job", SimpleNamespace(check=check))
        with pytest.raises(cancel.Cancelled):
            formats.read(name, LARGE[name])


@pytest.mark.parametrize(
    ("path", "data", "found"),
    [
        ("a.docx", DOCX, "## Giraffes\n\nA tall\tone & more\n\ncell\n\na note\n"),
        ("a.odt", ODT, "### Giraffes\n\nA tall one\n"),
        ("a.ipynb", json.dumps(NOTEBOOK).encode(), "# Giraffes\nare tall\n\n```python\nheight = 5\n```\n"),
        ("a.txt.gz", zipped(b"giraffe\n") + zipped(b"zebra\n") + b"\0\0", "giraffe\nzebra\n"),
        ("a.html.gz", zipped(b"<p>giraffe</p>"), "giraffe"),
        ("a.txt", "\ufeffgiraffe".encode("utf-16"), "giraffe"),
        ("a.txt", b"\xff\xfe" + "giraffe".encode("utf-16-le"), "giraffe"),
        ("a.txt", b"\xfe\xff" + "giraffe".encode("utf-16-be"), "giraffe"),
        ("a.txt", "giraffe".encode("utf-32"), "giraffe"),
        ("a.txt", b"\xef\xbb\xbfgiraffe", "giraffe"),
        ("a.txt", b"caf\xe9 \x93so\x94", "caf\u00e9 \u201cso\u201d"),
        ("a.txt", b"\xe9\x81", "\u00e9\x81"),
        ("a.txt", "\u00e9\u00e8\u00ea\u00fc\u00f6 ".encode() + b"\xff!", "\u00e9\u00e8\u00ea\u00fc\u00f6 \ufffd!"),
    ],
)
def test_kinds(path, data, found):
    assert formats.refused(path, data) == ""
    assert text(path, data) == found


def test_mail_and_books():
    assert text("a.eml", MAIL).split("\n") == [
        "# Caf\u00e9 and giraffes", "", "From: Ann <ann@example.org>", "To: bob@example.org", "", "a tall giraffe",
    ]  # fmt: skip
    book = formats.read("a.epub", EPUB)
    rows = book.text.split("\n")
    assert [row for row in rows if row] == ["# First", "giraffe", "# Second", "crocodile"]
    assert all(rows[line].startswith("#") for line, joint in book.joints.items() if joint == 2)


def test_a_mail_has_the_mails_that_it_forwards():
    forwarded = (
        b"From: a@b\nSubject: outer\nContent-Type: multipart/mixed; boundary=z\n\n--z\n\nsee below\n--z\n"
        b"Content-Type: message/rfc822\nContent-Disposition: attachment\n\n" + MAIL + b"\n--z\n"
        b"Content-Type: text/plain\nContent-Disposition: attachment; filename=a.txt\n\ncrocodile\n--z--\n"
    )
    rows = [row for row in text("a.eml", forwarded).split("\n") if row]
    assert rows[:4] == ["# outer", "From: a@b", "see below", "# Caf\u00e9 and giraffes"]
    assert rows[-1] == "a tall giraffe" and "crocodile" not in rows


@pytest.mark.parametrize(
    "subject", ["caf\u00e9".encode(), b"caf\xe9", b"=?iso-8859-1?q?caf=E9?=", b"=?utf-7?q?caf=C3=A9?="]
)
def test_subjects_of_mails(subject):
    assert text("a.eml", b"subject: " + subject + b"\n\nx").startswith("# caf\u00e9\n")


def test_texts_can_be_stored():
    """Half a surrogate pair has no UTF-8, and SQLite ends a text at NUL."""
    book = {"cells": [{"cell_type": "markdown", "source": "a \ud800 b \0 \ud83d\ude00"}]}
    assert text("a.ipynb", json.dumps(book).encode()) == "a \ufffd b  \U0001f600\n"
    assert text("a.txt", b"x" * 9000 + b"\0y") == "x" * 9000 + "y"


def test_pdf_pages():
    pytest.importorskip("pypdf")
    data = pdf("a tall giraffe", "a zebra")
    assert formats.refused("x", data) == ""
    assert text("x", data).split() == ["a", "tall", "giraffe", "a", "zebra"]


def test_what_is_damaged_or_hostile_is_unreadable():
    bomb = b'<!DOCTYPE x [<!ENTITY a "b">]><x><p>&a;</p></x>'
    for path, data in [
        ("a.docx", DOCX[:-40]), ("a.docx", archive(x="y")), ("a.odt", archive(**{"content.xml": "<a><p>x"})),
        ("a.odt", archive(**{"content.xml": bomb})), ("a.ipynb", b"{}"), ("a.ipynb", b"[" * 100_000), ("a.epub", ODT),
        ("a.gz", zipped(b"x" * 999)[:-9]), ("a.gz", zipped(bytes(INFLATED + 1))),
        *((f"{i}.docx", archive(**{"word/document.xml": f'<?xml version="1.0" encoding="{name}"?><p/>'}))
          for i, name in enumerate(("foo-bar", "hex", "shift_jis", "undefined"))),
    ]:  # fmt: skip
        with pytest.raises(formats.Unreadable):
            formats.read(path, data)
    heading = archive(**{"content.xml": '<o xmlns:t="t"><t:h t:outline-level="a">x</t:h></o>'})
    assert text("a.odt", heading) == "# x\n"
    assert formats.refused("a.gz.gz", zipped(zipped(b"x"))) == "binary"
    assert formats.refused("a.tar.gz", zipped(b"x\0y")) == "binary"
    assert formats.refused("a.zip", archive(x="y")) == "binary"


@given(st.sampled_from(["a.docx", "a.odt", "a.epub", "a.gz", "a.ipynb", "a.eml", "a.html", "a.txt"]), st.data())
def test_any_damage_is_told_or_text(path, data):
    whole = {"a.docx": DOCX, "a.odt": ODT, "a.epub": EPUB, "a.gz": zipped(b"giraffe" * 9), "a.eml": MAIL}
    found = bytearray(whole.get(path) or (json.dumps(NOTEBOOK) if path == "a.ipynb" else PAGE).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        found[data.draw(st.integers(0, len(found) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert isinstance(formats.read(path, bytes(found)).text, str)
    except formats.Unreadable as error:
        assert str(error)


def test_generated_text():
    prose = "It was a quiet evening and the giraffe looked over the wall. " * 200
    assert not is_generated("a.md", prose) and not is_generated("a.txt", "\u732b\u5750\u5728\u57ab\u5b50\u4e0a" * 2000)
    assert not is_generated("a.py", "def f(x):\n    return x\n" * 500)
    assert is_generated("a.js", "function a(b){return b+1};var c=[1,2,3];" * 200)
    assert is_generated("a.pem", "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo" * 200)
    assert is_generated("lib.min.css", "a { b: c }\n" * 500) and is_generated("Cargo.lock", "[[package]]\n" * 500)
    assert is_generated("a.go", "// Code generated by protoc-gen-go. DO NOT EDIT.\n\n" + "var a = 1\n" * 600)
    assert not is_generated("a.min.js", "short()")


# ---------------------------------------------------------------- in an index


def index(folder, model, *args, **options):
    return command("index", "-m", model, *args, cwd=folder, **options)


def search(folder, *args):
    return command("search", "--mode", "lexical", *args, cwd=folder)


def test_an_index_of_real_files(tmp_path, model):
    files = {
        "page.html": PAGE.encode(), "a.docx": DOCX, "a.odt": ODT, "b.ipynb": json.dumps(NOTEBOOK).encode(),
        "w.txt": "\ufeffa giraffe in utf-16\n".encode("utf-16"), "l1.txt": b"giraffe caf\xe9\n", "x.bin": b"a\0b",
        "y.bin": b"\0", "z.tgz": zipped(bytes(99)), "big.txt": b"red " * 300_000, "bad.docx": DOCX[:-40],
        "lib.min.js": b"giraffe(1);" * 2000, "log.gz": zipped(b"a giraffe log\n"),
    }  # fmt: skip
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    found = index(tmp_path, model, ".", "-o", "x.db", "--max-filesize", "1")
    assert found.status == 0 and found.err.decode().splitlines() == [
        "index: skipped 1 over 1 MB, 3 binary files, 1 unreadable, all but the beginning of 1 generated or minified;"
        " -v lists them",
        "index: 1 file held invalid UTF-8, read as Latin-1",
    ], found
    said = index(tmp_path, model, "-v", ".", "-o", "x.db", "--max-filesize", "1").err.decode()
    for line in ("x.bin: binary", "big.txt: too large", "bad.docx: damaged", "l1.txt: not UTF-8", "lib.min.js: gen"):
        assert line in said
    listed = search(tmp_path, "-l", "-k", "20", "giraffe giraffes", "x.db").ok().out.decode().split()
    assert sorted(listed) == ["a.docx", "a.odt", "b.ipynb", "l1.txt", "lib.min.js", "log.gz", "page.html", "w.txt"]
    assert b"page.html:7:taller than a zebra" in search(tmp_path, "zebra", "x.db").ok().out
    assert search(tmp_path, "caf\u00e9", "x.db").ok().out == "l1.txt:1:giraffe caf\u00e9\n".encode()
    assert search(tmp_path, "crocodile", "x.db").status == 1
    # an update has nothing to do
    index(tmp_path, model, ".", "-u", "x.db", "--max-filesize", "1").ok()
    # the same files without an index
    found = search(tmp_path, "zebra", "page.html", "l1.txt")
    assert found.status == 0 and b"page.html:7:" in found.out and b"1 file held invalid UTF-8" in found.err


def test_pdf_without_its_package(tmp_path, model, monkeypatch):
    (tmp_path / "a.pdf").write_bytes(pdf("giraffe"))
    monkeypatch.setitem(sys.modules, "pypdf", None)
    assert "toast-filters[pdf]" in formats.refused("a.pdf", pdf("x"))
    monkeypatch.undo()
    pytest.importorskip("pypdf")
    index(tmp_path, model, ".", "-o", "x.db").ok()
    assert search(tmp_path, "giraffe", "x.db").ok().out == b"a.pdf:1:giraffe\n"


def test_an_index_of_nothing(tmp_path, model):
    (tmp_path / "a.bin").write_bytes(b"\0")
    (tmp_path / "empty").write_bytes(b"")
    found = index(tmp_path, model, ".", "-o", "x.db")
    assert found.status == 1 and b"skipped 1 binary file" in found.err and b"nothing" in found.err
    found = index(tmp_path, model, "-o", "y.db", stdin=b"")
    assert found.status == 1
    found = search(tmp_path, "x", "x.db")
    assert (found.status, found.out) == (1, b"")


def test_an_index_into_its_own_folder(tmp_path, model):
    (tmp_path / "a.txt").write_text("giraffe\n")
    with open(tmp_path / "x.db", "wb") as out:
        index(tmp_path, model, ".", "-v").ok(quiet=False)
    import subprocess

    for _ in range(2):
        with open(tmp_path / "x.db", "wb") as out:
            words = [os.path.join(os.path.dirname(sys.executable), "index"), "-m", model, "."]
            ran = subprocess.run(words, cwd=tmp_path, stdout=out, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        assert (ran.returncode, ran.stderr) == (0, b"")
        index(tmp_path, model, ".", "-o", "y.db").ok()
    assert search(tmp_path, "-l", "--path", "*", "giraffe", "x.db").ok().out == b"a.txt\n"


# ---------------------------------------------------------------- which files


def tree(folder, *names, **texts):
    for name in [*names, *texts]:
        os.makedirs((folder / name).parent, exist_ok=True)
        (folder / name).write_text(texts.get(name, "giraffe " + name))


def listed(folder, model, *args, env=None):
    index(folder, model, ".", "-o", "/tmp/../" + str(folder) + "-x.db", *args, env=env).ok()
    return sorted(search(folder, "-l", "-k", "99", "giraffe", str(folder) + "-x.db").out.decode().split())


def test_hidden_and_excluded_files(tmp_path, model):
    tree(tmp_path, "a.txt", ".h.txt", ".d/b.txt", ".git/c", "node_modules/d.js", "src/e.js", "src/deep/f.log")
    assert listed(tmp_path, model) == ["a.txt", "node_modules/d.js", "src/deep/f.log", "src/e.js"]
    assert listed(tmp_path, model, "--hidden") == [
        ".d/b.txt", ".h.txt", "a.txt", "node_modules/d.js", "src/deep/f.log", "src/e.js",
    ]  # fmt: skip
    assert listed(tmp_path, model, "--exclude", "node_modules/", "--exclude", "*.{log,txt}") == ["src/e.js"]
    assert listed(tmp_path, model, "--exclude", "./src/deep") == ["a.txt", "node_modules/d.js", "src/e.js"]
    assert listed(tmp_path, model, "--exclude", "src", "--exclude", "!e.js")[-1] == "node_modules/d.js"
    index(tmp_path, model, "a.txt", "src/e.js", "--exclude", "*.js", "-o", "n.db").ok()
    assert search(tmp_path, "-l", "giraffe", "n.db").ok().out == b"a.txt\n"
    # an update takes out what is excluded now
    index(tmp_path, model, ".", "-o", "y.db", "--exclude", "*.db").ok()
    index(tmp_path, model, ".", "-u", "y.db", "--exclude", "src").ok()
    assert b"src" not in search(tmp_path, "-l", "giraffe", "y.db").out


def test_ignore_files_in_the_order_of_ripgrep(tmp_path, model):
    home = tmp_path / "home"
    tree(home, **{".gitconfig": '[core]\n\texcludesFile = "~/global"\n', "global": "*.glob\n*.kept\n"})
    top = tmp_path / "top"
    tree(top, "a.txt", "a.glob", "a.ex", "a.git", "a.own", "a.kept", "sub/b.git", "sub/b.own", "sub/a.ex", **{
        ".git/info/exclude": "*.ex\n!a.kept\n", ".gitignore": "*.git\n*.own\n", ".ignore": "!*.own\n",
        "sub/.gitignore": "!b.git\n*.own\n", "sub/.ignore": "a.ex\n",
    })  # fmt: skip
    env = {"HOME": str(home), "XDG_CONFIG_HOME": None}
    found = listed(top, model, env=env)
    assert found == ["a.kept", "a.own", "a.txt", "sub/b.git", "sub/b.own"]
    os.makedirs(home / ".config/git")
    (home / ".config/git/ignore").write_text("*.own\n*.txt\n")
    (home / ".gitconfig").unlink()
    assert "a.txt" not in listed(top, model, env=env)
    # the repository's own configuration comes before the user's, and its paths begin at the repository
    tree(top, **{".git/config": "[core]\n\tbare = false\n\texcludesFile = rules\n", "rules": "sub\nrules\n"})
    assert listed(top, model, env=env) == ["a.glob", "a.kept", "a.own", "a.txt"]
    (top / ".git/config").write_text("[core]\n\texcludesFile =\n")
    assert listed(top, model, env=env) == ["a.glob", *found]
    (top / ".git/config").unlink()
    # a folder of it, and one that is no repository
    assert listed(top / "sub", model, env=env) == ["b.git", "b.own"]
    tree(tmp_path / "plain", "a.txt", "b.txt", "c.own", "in/b.txt", **{".ignore": "b.txt\n"})
    assert listed(tmp_path / "plain", model, env=env) == ["a.txt", "c.own"]
    assert index(tmp_path / "plain/in", model, ".", "-o", "x.db", env=env).status == 1


def test_a_worktree_has_the_excludes_of_its_repository(tmp_path, model):
    tree(tmp_path, "w/a.txt", "w/b.ex", **{
        "main/.git/info/exclude": "*.ex\n", "main/.git/worktrees/w/commondir": "../..\n",
        "w/.git": f"gitdir: {tmp_path}/main/.git/worktrees/w\n",
    })  # fmt: skip
    assert listed(tmp_path / "w", model, env={"HOME": None, "XDG_CONFIG_HOME": None}) == ["a.txt"]
