"""Which words of a query are looked up, what each weighs, and what chunks have of them."""

import json
import sqlite3

import pytest
from command import command, shell

from embed import bm25, database, schema, words
from toast.encoding import idf


def lexicon(texts, name="x"):
    db = schema.connect(":memory:")
    schema.create(db)
    for i, text in enumerate(texts, 1):
        database.insert_chunk(db, i, (1, 1, database.text_hash(text), text))
    return bm25.Lexicon(db, name)


@pytest.fixture
def index(monkeypatch):
    """`the` in 10 chunks, `cat` in 4, `mat` in 2, `dog` in 1; limits so small that they matter."""
    monkeypatch.setattr(bm25, "POSTINGS", 5)
    return lexicon(["the"] * 4 + ["the cat"] * 3 + ["the mats"] * 2 + ["the cat dog"])


def ask(text, *lexicons, alone=False):
    return bm25.Asked(text, lexicons, words.TermExtractor(), alone=alone)


def kept(text, index, alone=False):
    """The words that are looked up, without runs of them."""
    return [word.expression for word in ask(text, index, alone=alone).kept if " " not in word.expression]


def test_rare_words_are_looked_up_and_common_ones_dropped(index):
    assert kept("the dog", index) == ['"dog"']
    assert kept("the cat dog", index) == ['"dog"', '"cat"']
    assert kept("cat mat dog the", index) == ['"dog"', '"mat"']
    assert kept("none", index) == kept("...", index) == []


def test_common_words_alone_say_nothing_unless_nothing_else_does(index):
    assert kept("the the", index) == []
    assert kept("the the", index, alone=True) == ['"the"']
    assert len(ask("the", index, alone=True).scores(0)) == 10


def test_words_meet_by_their_stems(index):
    assert sorted(ask("matted mat", index).scores(0)) == [8, 9]


def test_a_word_scores_as_bm25_has_it():
    """The paper's formula with the weights of `Asked`, over chunks of several lengths."""
    texts = ["cat", "cat cat dog bird", "dog " * 9 + "cat", "bird"]
    asked = ask("cat", lexicon(texts))
    length = sum(len(text.split()) for text in texts) / 4
    for i, text in enumerate(texts, 1):
        count = text.split().count("cat")
        norm = bm25.K1 * (1 - bm25.B + bm25.B * len(text.split()) / length)
        expected = asked.weights["cat"] * count * (1 + bm25.K1) / (count + norm)
        assert asked.scores(0).get(i, 0.0) == pytest.approx(expected, rel=1e-6)


def test_function_words_weigh_little_however_few_have_them():
    weights = ask(
        "where is my plane", lexicon(["my appointment is on tuesday", "a park", "a flight to lisbon"])
    ).weights
    assert weights["plane"] > 5 * max(weights[word] for word in ("where", "is", "my"))


@pytest.mark.parametrize(
    "text, function, content",
    [
        ("what is the schedule", "what is the", "schedule"),
        ("wo ist die katze", "wo ist die", "katze"),
        ("où est le chat", "où est le", "chat"),
        ("kde je kočka", "", "kde je kočka"),
    ],
)
def test_function_words_of_a_language(text, function, content):
    shares = idf.shares(text.split())
    assert all(shares[word] == idf.FUNCTION for word in function.split())
    assert all(shares[word] < 0.2 for word in content.split())


def test_words_side_by_side_count_more_and_a_whole_query_most():
    found = ask("event loop is closed", lexicon(["closed is a loop of an event", "the event loop is closed", "x y z"]))
    scores = found.scores(0)
    assert scores[2] > 1.2 * scores[1]


def test_a_query_that_stands_somewhere_word_for_word_comes_first(model, tmp_path):
    """Whatever else has its words, and however often; repeated words among them."""
    filler = "event closed loop " * 4
    texts = [
        filler,
        filler,
        f"{filler} {'the sky ' * 5} the event loop is closed {'red ' * 5}",
        f"loop {filler}",
        "the the",
    ]
    data = "\n".join([*texts, "the more the merrier", "merrier the more"]).encode()
    for mode in ("lexical", "hybrid"):
        for query, line in (("event loop is closed", b"-:3:"), ("the more the merrier", b"-:6:")):
            found = command("search", "-m", model, "--mode", mode, query, "--threshold", "0", "--scores", stdin=data)
            rows = [row.split(b"\t") for row in found.ok(quiet=False).out.splitlines()]
            assert rows[0][1].startswith(line), found
            assert sorted((float(score) for score, _ in rows), reverse=True) == [float(score) for score, _ in rows]


def test_what_stands_in_many_places_is_no_reason_to_come_first():
    places = bm25.PLACES
    assert ask("the cat sat", lexicon(["the cat sat"] * places)).verbatim(0) == set(range(1, places + 1))
    assert ask("the cat sat", lexicon(["the cat sat"] * (places + 1))).verbatim(0) == set()
    assert ask("cat sat", lexicon(["the cat sat"])).verbatim(0) == set()


def test_shards_score_as_their_merge():
    texts = [f"{'cat ' * (i % 3)}{'dog ' * (i % 5)}bird {'filler ' * (i % 7)}" for i in range(40)]
    whole = ask("the cat and the dog", lexicon(texts)).scores(0)
    parts = ask("the cat and the dog", *(lexicon(texts[i : i + 10]) for i in range(0, 40, 10)))
    for i in range(4):
        for chunk, score in parts.scores(i).items():
            assert score == pytest.approx(whole[10 * i + chunk], rel=1e-9)


@pytest.mark.parametrize("mode", ["hybrid", "lexical", "vector"])
def test_searches_of_shards_and_of_their_merge_are_the_same(tmp_path, model, mode):
    names = "cat dog bird sat mat ran sky blue red fast slow model filter pipe line".split()
    for shard in range(3):
        texts = [
            " ".join(names[(i * 7 + shard * 3 + j * (i % 4 + 1)) % len(names)] for j in range(3 + i % 6))
            for i in range(20)
        ]
        lines = "".join(json.dumps({"id": f"{shard}-{i}", "text": text}) + "\n" for i, text in enumerate(texts))
        command(
            "index", "-m", model, "--jsonl", "--id", "id", "-o", f"{shard}.db", stdin=lines.encode(), cwd=tmp_path
        ).ok()
    shell("index --merge 0.db 1.db 2.db -o all.db", cwd=tmp_path).ok()

    def ask_of(*indexes):
        words = ["--mode", mode, "--json", "-k", "10", "--threshold", "-9"]
        ran = command("search", "-m", model, "the fast cat ran", *words, *indexes, cwd=tmp_path).ok()
        return {hit["id"]: hit["score"] for hit in map(json.loads, ran.out.splitlines())}

    parts, whole = ask_of("0.db", "1.db", "2.db"), ask_of("all.db")
    assert list(parts) == list(whole) and parts == pytest.approx(whole, abs=1e-6)


def test_damaged_totals_are_told():
    lexicon_ = lexicon(["cat"])
    lexicon_.db.execute("UPDATE words_data SET block = 5 WHERE id = 1")
    with pytest.raises(schema.DamagedIndex, match="x.db"):
        bm25.Lexicon(lexicon_.db, "x.db")


def test_no_word_of_a_query_is_an_operator(index):
    for text in ("dog AND (", '"', "NEAR/2 dog", "dog* ^cat", "a:b -c"):
        ask(text, index).scores(0)


def test_sqlite_counts_as_we_read_it(tmp_path):
    """The averages record of FTS5, against its own count."""
    texts = ["cat " * n for n in range(1, 300)]
    found = lexicon(texts)
    assert (found.count, found.length) == (299, sum(range(1, 300)) / 299)
    assert sqlite3.sqlite_version_info >= (3, 20)
