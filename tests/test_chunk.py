"""Where texts are cut."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embed.chunk import chunk, record
from embed.logs import is_log


def words(texts):
    return [len(text.split()) for text in texts]


def letters(texts):
    return [len(text) for text in texts]


def cut(text, limit=20, **options):
    return list(chunk(text, words, limit, **options))


def test_a_short_text_is_one_chunk():
    assert cut("one\n\ntwo\n") == [(1, 3, "one\n\ntwo")]
    assert cut("") == cut("\n \n") == []


def test_markdown_is_cut_at_headings_outside_of_code():
    text = "# A\n" + "a " * 8 + "\n```\n# no heading\n```\n## B\n" + "b " * 8 + "\n"
    assert [c[:2] for c in cut(text, suffix="md")] == [(1, 5), (6, 7)]


def test_a_small_section_shares_its_chunk():
    text = "# Title\n\n## Part\n" + "word " * 10
    assert [c[:2] for c in cut(text, suffix="md")] == [(1, 4)]


def test_restructured_text_is_cut_at_sections():
    text = "Title\n=====\n" + "a " * 8 + "\n\nNext\n----\n" + "b " * 8
    assert [c[:2] for c in cut(text, suffix="rst")] == [(1, 3), (5, 7)]


def test_setext_headings_and_long_fences():
    text = "A\n===\n" + "a " * 8 + "\n````\n```\n# no heading\n````\n\nB\n---\n" + "b " * 8 + "\n"
    assert [c[:2] for c in cut(text, suffix="md")] == [(1, 7), (9, 11)]


def test_a_title_with_a_line_above_it():
    text = "=====\nTitle\n=====\n" + "a " * 8 + "\n\n----\nNext\n----\n" + "b " * 8
    assert [c[:2] for c in cut(text, suffix="rst")] == [(1, 4), (6, 9)]


def test_blank_lines_take_no_time():
    begun = time.perf_counter()
    assert cut("a" + "\n" * 200_000 + "b c") == [(1, 200_001, "a" + "\n" * 200_000 + "b c")]
    assert cut("\n" * 200_000 + "b") == [(200_001, 200_001, "b")]
    assert time.perf_counter() - begun < 5


def test_chunks_come_before_all_is_read():
    counted = []
    next(chunk("a b c\n" * 100_000, lambda texts: counted.extend(texts) or words(texts), 20))
    assert len(counted) < 2000


def test_code_is_cut_at_definitions():
    text = "def a():\n    return 1 + 2 + 3\n\n\ndef b():\n    x = 1\n\n    return x\n"
    assert [c[:2] for c in cut(text, limit=12, suffix="py")] == [(1, 2), (5, 8)]


def test_a_full_chunk_ends_at_a_paragraph():
    text = "a a a a a a\nb b b b b b\n\nc c c c c c\nd d d d d d\n"
    assert [c[:2] for c in cut(text)] == [(1, 2), (4, 5)]


def test_lines_and_paragraphs():
    text = "a\nb\n\nc\n"
    assert cut(text, mode="lines") == [(1, 1, "a"), (2, 2, "b"), (4, 4, "c")]
    assert cut(text, mode="paragraphs") == [(1, 2, "a\nb"), (4, 4, "c")]


def test_a_long_line_is_cut_at_sentences():
    text = "One two three. Four five six. Seven eight nine."
    assert [c[2] for c in cut(text, limit=6)] == ["One two three. Four five six.", "Seven eight nine."]


def test_a_long_record_is_cut_evenly():
    text = " ".join(f"Sentence number {i} here." for i in range(10))
    parts = list(record(text, words, 30))
    assert [c[:2] for c in parts] == [(1, 1)] * 2
    assert " ".join(c[2] for c in parts) == text
    assert max(words(c[2] for c in parts)) - min(words(c[2] for c in parts)) <= 4


@given(st.text(alphabet="ab .\n#=\r\x0b\u2028\u4e2d", max_size=300), st.integers(1, 12))
def test_chunks_are_slices_within_the_limit_and_lose_nothing(text, limit):
    for suffix in ("", "md", "rst", "py"):
        parts = list(chunk(text, letters, limit, suffix=suffix))
        rows = text.split("\n")
        for start, end, body in parts:
            assert 1 <= start <= end <= len(rows)
            assert len(body) <= limit and body in "\n".join(rows[start - 1 : end])
        assert "".join("".join(c[2] for c in parts).split()) == "".join(text.split())


# ---------------------------------------------------------------- logs

LOGS = {
    "iso": "2026-11-02T10:00:01Z INFO a\n2026-11-02 10:00:02 WARN b\n",
    "syslog": "Nov  2 10:00:01 host sshd[1]: a\nNov  2 10:00:02 host kernel: b\n",
    "access": '10.0.0.1 - - [02/Nov/2026:10:00:01 +0000] "GET /a"\n::1 - - [02/Nov/2026:10:00:01 +0000] "GET /b"\n',
    "klog": "I1102 10:00:01.123 1 a.go:1] a\nE1102 10:00:01.124 1 b.go:2] b\n",
    "chat": "[10:00:01] <ann> a\n\n[10:00:02] <bob> b\n",
    "am": "[9:05:01 AM] a\n[9:06 PM] b\n",
    "bare": "10:02 ERROR a\n10:03:01.123 [main] b\n",
    "dmesg": "[    0.123456] a\n[   12.000001] b\n",
    "priority": "<34>Oct 11 22:14:15 host su: a\n<13>1 2026-11-02T10:00:01.5+01:00 host b\n",
    "level": "ERROR 2026-11-02 10:00:01,123 a\n[INFO] 10:00 b\n",
    "apache": "[Mon Nov 02 10:00:01.123 2026] [error] a\n[Mon Nov 02 10:00:02 2026] [warn] b\n",
    "json": '{"time": "2026-11-02T10:00:01Z", "msg": "a"}\n{"ts":1699000000.5,"msg":"b"}\n',
    "python": "2026-11-02 10:00:01,123 - root - INFO - a\n2026/11/02 10:00:02 [error] b\n",
}


@pytest.mark.parametrize("text", LOGS.values(), ids=LOGS)
def test_a_log_is_cut_at_its_entries(text):
    one, two = text.replace("\n\n", "\n").splitlines()
    assert [piece for *_, piece in cut(text, 100)] == [one, two]
    trace = text + "Traceback:\n  File x\n"
    assert [piece for *_, piece in cut(trace, 100)] == [one, two + "\nTraceback:\n  File x"]
    assert [piece for *_, piece in cut("a banner\n" + text, 100)] == ["a banner", one, two]
    long = "    at a.b(C.java)\n" * 80 + "Caused by: x\na.b.SomeException: y\n"
    assert is_log(long + text) and is_log(text + long)


NO_LOGS = {
    "subtitles": "".join(f"{i}\n00:00:0{i},000 --> 00:00:0{i},900\nhello\n\n" for i in range(9)),
    "diary": "2026-11-02\nWe met at 10:00:01 and talked.\nNothing else.\n",
    "note": "The meeting starts at 10:00:00 sharp.\nBring slides.\n",
    "yaml": 'open: "08:00:00"\nclose: "18:00:00"\n',
    "recipe": "Bake for 00:45:00 at 180 degrees.\nRest for 00:10:00.\n",
    "macs": "00:11:22:33:44:55 printer\n00:11:22:33:44:56 router\n",
    "table": "2026-11-02 10:00:01,cat,5\n2026-11-02 10:00:02,dog,6\n2026-11-03,12:00:00,7\n",
    "transcript": "00:00:01 Ann: hello\n00:00:02 Bob: hello\n",
    "speech": "[00:00:00.000 --> 00:00:02.000]  hello\n[00:00:02.000 --> 00:00:03.000]  world\n",
    "agenda": "10:00 Welcome\n10:30-11:00 Coffee\n",
    "verses": "3:16 For God\n3:17 And then\n",
    "one": "2026-11-02 10:00:01 one line\n",
    "few": LOGS["iso"] + "text\n" * 3,
    "heading": "# 10:00:01\n\ntext\n\ntext\n",
    "nothing": "", "blank": "\n", "lines": "a\n" * 9,
}  # fmt: skip


@pytest.mark.parametrize("text", NO_LOGS.values(), ids=NO_LOGS)
def test_what_is_no_log_is_not(text):
    assert not is_log(text)


def test_a_suffix_tells_what_is_no_log():
    for suffix in ("md", "rst", "py", "csv", "tsv", "yaml", "YML", "toml", "srt", "vtt"):
        assert len(cut(LOGS["iso"], 100, suffix=suffix)) == 1, suffix
    assert len(cut(LOGS["iso"], 100, suffix="log")) == 2
