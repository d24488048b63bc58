"""Decoding in batches must give what decoding alone gives: the same ids, from the same bits."""

import json
import os
from functools import cache

import mlx.core as mx
import pytest

from toast import kernels
from toast.generation import decoder, device
from toast.generation import ragged_cache as text_rows
from toast.generation.batch_generate import Job, decode
from toast.generation.generate import Generation, Sequence, prefill
from toast.generation.ragged_cache import LastPrompt, RowCache
from toast.generation.sample import Sampler

ORACLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles")
QUANTISED = "llama, quantised"  # its layers tell texts apart in one call
FIXTURES = ["llama-causal", "qwen3-causal", "llama3-rope-causal", QUANTISED]


@pytest.fixture(autouse=True)
def our_kernels():
    """Rows are invariant under our kernels; without them only the ids are compared."""
    kernels.install()
    decoder.architecture("", {"model_type": "llama"})


@cache
def model(name):
    return quantised() if name == QUANTISED else decoder.load(os.path.join(ORACLES, name))[0]


def quantised():
    import mlx.nn as nn

    args = dict(model_type="llama", hidden_size=64, num_hidden_layers=2, intermediate_size=96, num_attention_heads=4,
                num_key_value_heads=2, rms_norm_eps=1e-5, vocab_size=660)  # fmt: skip
    llama = decoder.architecture("", args)
    mx.random.seed(1)
    made = llama.Model(llama.ModelArgs(**args))
    nn.quantize(made, 32, 8)
    mx.eval(made.parameters())
    return made


@cache
def prompts(name):
    with open(
        os.path.join(ORACLES, FIXTURES[0] if name == QUANTISED else name, "oracle.json"), encoding="utf-8"
    ) as file:
        return [run["ids"] for run in json.load(file)["runs"] if run["ids"]]


def alone(name, ids, sampler, limit, ends=(), top=None):
    caches = decoder.caches(model(name))
    sequence = Sequence(ends, limit)
    sampler.begin(ids, sequence)
    prefill(model(name), caches, ids[:-1])
    generation = Generation(model(name), caches, sampler, sequence=sequence, top=top)
    return [(t.id, t.logprob, t.top) for t in generation.run(ids[-1])], generation.sequence.reason


def together(name, jobs, rows):
    done = list(decode(model(name), lambda: decoder.caches(model(name)), jobs, rows=rows))
    assert {id(job) for job in done} == {id(job) for job in jobs}
    return [([(t.id, t.logprob, t.top) for t in job.tokens], job.sequence.reason) for job in jobs]


def never(token):
    return False


@pytest.mark.parametrize("rows", [1, 3, 16])
@pytest.mark.parametrize("name", FIXTURES)
def test_batched_is_alone(name, rows):
    """More records than rows, of different lengths, with ends that come early."""
    limits = [3, 24, 9, 1, 17, 24, 5, 30, 2, 11, 24, 8]
    cases = list(zip(prompts(name) * 2, limits))
    want = [alone(name, ids, Sampler(), limit, {7, 34}) for ids, limit in cases]
    jobs = [Job(ids, Sampler(), Sequence({7, 34}, limit), accept=never) for ids, limit in cases]
    assert together(name, jobs, rows) == want


@pytest.mark.parametrize("name", ["qwen3-causal", "llama3-rope-causal"])
def test_batched_texts_that_must_not_repeat_themselves(name):
    """As the default model is sampled; a row's repetitions are its own."""
    cases, settings = prompts(name)[:6], {"dry": 2.0, "end": 0.5}
    want = [alone(name, ids, Sampler(**settings), 150, {7, 34}) for ids in cases]
    assert any(alone(name, ids, Sampler(), 150, {7, 34}) != one for ids, one in zip(cases, want, strict=True))
    jobs = [Job(ids, Sampler(**settings), Sequence({7, 34}, 150)) for ids in cases * 2]
    assert together(name, jobs, 5) == want * 2


def test_logprobs_have_the_same_bits():
    if kernels.variant() == "off":
        pytest.skip("plain MLX is not row-invariant")
    cases = prompts("llama3-rope-causal")[:6]
    want = [alone("llama3-rope-causal", ids, Sampler(), 12, top=3) for ids in cases]
    jobs = [Job(ids, Sampler(), Sequence((), 12), accept=never, top=3) for ids in cases]
    assert together("llama3-rope-causal", jobs, 4) == want


def test_every_row_draws_from_its_own_seed():
    cases = prompts("qwen3-causal")[:5]
    want = [alone("qwen3-causal", ids, Sampler(temperature=0.9, top_k=20, seed=4), 10) for ids in cases]
    jobs = [Job(ids, Sampler(temperature=0.9, top_k=20, seed=4), Sequence((), 10), accept=never) for ids in cases]
    assert together("qwen3-causal", jobs, 3) == want


def test_take_ends_a_text():
    ids = prompts("llama-causal")[0]
    seen = []
    job = Job(ids, Sampler(), Sequence((), 24), accept=lambda token: seen.append(token.id) or len(seen) == 4)
    assert together("llama-causal", [job], 2)[0][1] == "stop" and len(job.tokens) == 4


@pytest.mark.parametrize("form", ["as it is", "Masked"])
@pytest.mark.parametrize("name", FIXTURES)
def test_jobs_may_come_later(monkeypatch, name, form):
    """Rows are added while others are under way, and taken again after they were free for a while."""
    if form == "Masked":
        monkeypatch.setattr(kernels, "supports_ragged_batch", lambda model: False)
    limits = [9, 3, 17, 2, 24, 5, 1, 8]
    cases = list(zip(prompts(name) * 2, limits))
    want = [alone(name, ids, Sampler(), limit) for ids, limit in cases]
    jobs = [Job(ids, Sampler(), Sequence((), limit), accept=never) for ids, limit in cases]

    def arriving():
        for n, job in enumerate(jobs):
            yield job
            yield from [None] * (n % 4)

    done = list(decode(model(name), lambda: decoder.caches(model(name)), arriving(), rows=3))
    assert len(done) == len(jobs)
    assert [([t.id for t in job.tokens], job.sequence.reason) for job in jobs] == [
        ([t[0] for t in w], r) for w, r in want
    ]


def test_jobs_are_asked_for_one_by_one():
    asked = []

    def jobs():
        for ids in prompts("llama-causal")[:6]:
            asked.append(ids)
            yield Job(ids, Sampler(), Sequence((), 5), accept=never)

    run = decode(model("llama-causal"), lambda: decoder.caches(model("llama-causal")), jobs(), rows=2)
    next(run)
    assert len(asked) == 2
    assert len(list(run)) == 5


def test_quantised_layers_tell_texts_apart():
    if kernels.variant() == "off":
        pytest.skip("plain MLX has no such layers")
    kinds = {
        name: type(text_rows.batch(model(name), lambda: decoder.caches(model(name)))).__name__ for name in FIXTURES
    }
    assert kinds == dict.fromkeys(FIXTURES[:3], "Masked") | dict.fromkeys(FIXTURES[3:], "Ragged")


def test_beginnings_are_copied_from_other_rows(monkeypatch):
    """The first prompt is read whole, of the others what is new, in pieces of any size; all as if alone."""
    name, fed = QUANTISED, []
    if kernels.variant() == "off":
        pytest.skip("plain MLX has no such layers")
    monkeypatch.setattr(device, "PIECE", 4)
    rows = text_rows.Ragged(model(name), lambda: decoder.caches(model(name)))
    forward = rows._forward
    monkeypatch.setattr(rows, "_forward", lambda new: (fed.append(sum(map(len, new.values()))), forward(new))[1])
    texts = [[1, 5, 6, 7, 8, 9, 10, 11], [1, 5, 6, 9, 9], [1, 5, 6, 7, 20]]
    rows.place(dict(enumerate(texts)))
    rows.place({1: [1, 5, 6, 7, 8, 21, 22]})  # begins as row 0 does
    texts[1] = [1, 5, 6, 7, 8, 21, 22]
    assert fed == [4, 3, 1, 1]
    logits = rows.step({row: ids[-1] for row, ids in enumerate(texts)})
    for row, ids in zip(logits, texts):
        caches = decoder.caches(model(name))
        prefill(model(name), caches, ids[:-1])
        assert mx.array_equal(row, model(name)(mx.array([ids[-1:]]), cache=caches)[0, -1]).item()


def test_shared_beginnings_are_read_once(monkeypatch):
    counted = []
    monkeypatch.setattr(
        text_rows, "prefill", lambda model, caches, ids: (counted.append(len(ids)), prefill(model, caches, ids))
    )
    prefix = LastPrompt(model("llama-causal"), lambda: decoder.caches(model("llama-causal")))
    for ids in ([1, 5, 6, 7, 8], [1, 5, 6, 9], [1, 5, 6, 9, 9, 9], [1, 5, 6, 9, 9, 9]):
        caches = prefix.prefill(ids[:-1])
        assert caches[0].offset == len(ids) - 1
        fresh = decoder.caches(model("llama-causal"))
        prefill(model("llama-causal"), fresh, ids[:-1])
        for a, b in zip(caches, fresh):
            assert mx.allclose(a.keys[..., : a.offset, :], b.keys[..., : b.offset, :], atol=1e-5).item()
    assert counted == [4, 0, 2, 0]


def test_a_row_that_holds_nothing_yet_is_kept_empty():
    """What lies past a buffer may be NaN, which no mask hides."""
    cache, single = RowCache(1), decoder.caches(model("llama-causal"))[0]
    single.update_and_fetch(mx.ones((1, 2, 256, 8)), mx.ones((1, 2, 256, 8)))
    cache.place(0, single)
    cache.lengths.append(0)
    cache.keep([1, 0])
    assert cache.keys.shape == (2, 2, 256, 8) and cache.keys[0].max().item() == 0 == cache.values[0].max().item()
    assert cache.keys[1].min().item() == 1 and cache.lengths == [0, 256]


def test_rows_are_masked_by_their_own_length():
    cache = RowCache(2)
    cache.lengths = [1, 3]
    cache.begin_step()
    assert cache.make_mask(1).tolist() == [[[[True, True, False, False]]], [[[True, True, True, True]]]]
    assert cache.make_mask(1, window_size=2)[1].tolist() == [[[False, False, True, True]]]
