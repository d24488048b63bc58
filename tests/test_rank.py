"""Which words of a query are looked up, and how two scores become one."""

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embed import database, rank, schema, words


@pytest.fixture
def index(monkeypatch):
    """`the` in 10 chunks, `cat` in 4, `mat` in 2, `dog` in 1; limits so small that they matter."""
    monkeypatch.setattr(rank, "POSTINGS", 5)
    db = schema.connect(":memory:")
    schema.create(db)
    texts = ["the"] * 4 + ["the cat"] * 3 + ["the mats"] * 2 + ["the cat dog"]
    for i, text in enumerate(texts, 1):
        database.insert_chunk(db, i, (1, 1, database.text_hash(text), text))
    return rank.Index(db, 0, exact=False, extractor=words.TermExtractor())


def test_rare_words_are_looked_up_and_common_ones_dropped(index):
    assert index.match("the dog") == '"dog"'
    assert index.match("the cat dog") == '"dog" OR "cat"'
    assert index.match("cat mat dog the") == '"dog" OR "mat"'
    assert index.match("none") == index.match("...") == ""


def test_common_words_alone_say_nothing_unless_nothing_else_does(index):
    assert index.match("the the") == ""
    assert index.match("the the", alone=True) == '"the"'
    assert len(index.bm25("the", alone=True)) == 10


def test_words_meet_by_their_stems(index):
    assert sorted(index.bm25("matted mat")) == [8, 9]


def fused(ids, scores, found, known, k):
    return rank.hybrid(ids, scores, found, scale=rank.Scale([(scores, found)], known), allowed=None, k=k)


def test_a_query_that_the_model_does_not_know_is_left_to_the_words():
    ids, scores = array("q", [1, 2, 3]), array("f", [0.9, 0.1, 0.2])
    words = {2: 5.0, 3: 4.0}
    assert [hit.chunk for hit in fused(ids, scores, words, 0.0, 3)] == [2, 3, 1]
    assert fused(ids, scores, {}, 1.0, 3)[0].chunk == 1


def test_the_best_match_of_both_scores_one():
    ids, scores = array("q", [1, 2]), array("f", [1.0, 0.0])
    hit = fused(ids, scores, {1: 3.0}, 1.0, 1)[0]
    assert (hit.chunk, hit.cosine, hit.bm25) == (1, 1.0, 3.0) and hit.score == pytest.approx(1)


def test_no_score_is_over_one():
    ids, scores = array("q", [1, 2, 3]), array("f", [1.0002, 1.0005, 0.0])
    for hits in (fused(ids, scores, {2: 3.0}, 1.0, 2), rank.vector(ids, scores, allowed=None, k=2)):
        assert [hit.chunk for hit in hits] == [2, 1]
        assert max(max(hit.score, hit.cosine) for hit in hits) == 1.0


def test_scores_of_several_indexes_are_those_of_one():
    scores = array("f", [i / 100 for i in range(60)])
    words = {i: float(i) for i in range(1, 60, 7)}
    whole = rank.Scale([(scores, words)], 1.0)
    first, rest = {i: s for i, s in words.items() if i < 7}, {i: s for i, s in words.items() if i >= 7}
    parts = rank.Scale([(scores[:7], first), (scores[7:], rest), (array("f"), {})], 1.0)
    for cosine, bm25 in ((0.5, 0.0), (0.2, 3.0), (1.0, 57.0)):
        assert parts.score(cosine, bm25) == pytest.approx(whole.score(cosine, bm25), abs=1e-6)


def test_a_single_chunk_can_be_right_or_wrong():
    for cosine, expected in ((1.0, 1.0), (rank.NOTHING, 0.0)):
        scale = rank.Scale([(array("f", [cosine]), {})], 1.0)
        assert scale.score(cosine, 0.0) == pytest.approx(expected * scale.cosine, abs=1e-6)


def test_bm25_counts_more_the_further_its_best_stands_out():
    flat, steep = dict.fromkeys(range(50), 5.0), {0: 50.0, **dict.fromkeys(range(1, 50), 5.0)}
    weights = [rank.weight(words.values(), 1000, 0.5) for words in (flat, steep)]
    assert weights[0] < weights[1]
    assert rank.weight(steep.values(), 1000, 0.9) < weights[1]


def test_equal_scores_come_in_the_order_of_their_chunks():
    ids, scores = array("q", range(1, 9)), array("f", [0.5] * 8)
    assert [chunk for _, chunk in rank.top(ids, scores, allowed=None, k=8)] == list(range(1, 9))
    assert [hit.chunk for hit in rank.lexical({3: 1.0, 1: 1.0, 2: 2.0}, None, 3)] == [2, 1, 3]
    assert [hit.chunk for hit in rank.lexical({3: 1.0, 1: 1.0, 2: 2.0}, {1, 3}, 1)] == [1]


@given(
    st.text(
        st.sampled_from("ab \u00e9\u2019\u0e00\u0e41\u0fff\u1000\u10a0\u4e2d\u6587\u9fff\ua000\U00020000\U00040000")
        | st.characters(exclude_categories=["Cs"])
    )
)
def test_only_unspaced_scripts_become_pairs(text):
    inside = [any(ord(a) <= ord(c) <= ord(b) for a, _, b in words.UNSPACED) for c in text]
    found = words.spaced(text)
    assert (found == text) == (not any(inside))
