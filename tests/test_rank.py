"""Which words of a query are looked up, and how two scores become one."""

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embed import rank, words


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


def test_in_a_small_collection_the_best_of_poor_matches_is_not_one():
    """Two chunks, one with a word of many: the nearer one is first, and would not be if that word were all there is."""
    ids, scores = array("q", [1, 2]), array("f", [0.4, 0.3])
    for ideal, first in ((10.0, 1), (1.0, 2)):
        scale = rank.Scale([(scores, {2: 1.0})], 1.0, ideal=ideal)
        assert rank.hybrid(ids, scores, {2: 1.0}, scale=scale, allowed=None, k=1)[0].chunk == first


def test_a_large_collection_shows_how_good_the_best_match_is():
    """The more chunks, the nearer the measure of BM25 comes to the best that there is."""
    most = [rank.Scale([(array("f", [0.1] * n), {1: 2.0})], 1.0, ideal=10.0).most for n in (4, 400, 40_000)]
    assert most == pytest.approx([9.92, 6.0, 2.08], abs=0.01)


def test_an_answer_is_near_or_has_the_words():
    far, near = array("f", [0.05] * 300), array("f", [0.05] * 299 + [0.6])
    for cosines, cosine, bm25, expected in ((far, 0.05, 0.0, False), (near, 0.6, 0.0, True), (far, 0.2, 10.0, True)):
        scale = rank.Scale([(cosines, {1: bm25} if bm25 else {})], 1.0, ideal=10.0)
        assert scale.answers(cosine, bm25) is expected
    few = rank.Scale([(array("f", [0.05] * 7 + [0.35]), {})], 1.0)
    assert few.answers(0.35, 0.0) and not few.answers(0.05, 0.0)  # the best of few is no chance


def weight(found, height=0.5, ideal=30.0):
    return rank.weight(found.values(), 1000, height=height, ideal=ideal)


def test_bm25_counts_more_the_further_its_best_stands_out():
    flat = dict.fromkeys(range(50), 5.0)
    steep = flat | {0: 8.0}
    assert weight(flat) == 0 < weight(steep) < 1
    assert weight(steep, height=0.9) < weight(steep) < weight(steep, ideal=90.0)


def test_an_answer_is_one_whatever_cosines_the_model_gives():
    """A model whose unrelated texts have 0.75 and one whose have 0: the floor lies as far above both."""
    for base in (0.0, 0.75):
        cosines = array("f", [base + (1 - base) * x for x in (0.02, -0.02, 0.0, 0.01) * 100])
        scale = rank.Scale([(cosines, {})], 1.0, unrelated=lambda: base)
        found = [scale.answers(base + (1 - base) * x, 0.0) for x in (0.4, 0.5)]
        told = scale.absolute(base + (1 - base) * 0.6, 0.0)
        assert found == [False, True] and told == pytest.approx(0.45, abs=1e-6)


def test_what_unrelated_texts_have_is_asked_where_no_cosine_is_near_0():
    rank.Scale([(array("f", [0.6, 0.05]), {})], 1.0, unrelated=lambda: pytest.fail("a chunk is far"))
    assert rank.Scale([(array("f", [0.6, 0.5]), {})], 1.0, unrelated=lambda: 0.4).unrelated == 0.4


def test_bm25_never_counts_more_than_cosines():
    assert weight({0: 50.0}) == 1 and rank.Scale([(array("f", [0.1] * 999), {1: 50.0})], 1.0).bm25 <= 0.5


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
    inside = [any(ord(a) <= ord(c) <= ord(b) for a, _, b in words.PAIRED[words.CURRENT]) for c in text]
    found = words.spaced(text)
    assert (found == text) == (not any(inside))
