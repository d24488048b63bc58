"""The decoding loop on the tiny reference models."""

import json
import os
from functools import cache

import mlx.core as mx
import numpy as np
import pytest

from toast import kernels
from toast.generation import decoder, device
from toast.generation.generate import Generation, Sequence, prefill
from toast.generation.prompt_lookup import PAUSE, Drafter
from toast.generation.sample import Sampler

ORACLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles")
FIXTURES = ["llama-causal", "qwen3-causal", "llama3-rope-causal"]


@cache
def model(name):
    return decoder.load(os.path.join(ORACLES, name))[0]


def runs(name):
    with open(os.path.join(ORACLES, name, "oracle.json"), encoding="utf-8") as file:
        return [run for run in json.load(file)["runs"] if run["ids"]]


def generation(name, ids, sampler=None, *, limit=1 << 30, ends=(), guide=None, **settings):
    caches = decoder.caches(model(name))
    sampler = sampler or Sampler()
    sequence = Sequence(ends, limit, guide)
    sampler.begin(ids, sequence)
    prefill(model(name), caches, ids[:-1])
    made = Generation(model(name), caches, sampler, sequence=sequence, **settings)
    return made, made.run(ids[-1])


@pytest.mark.parametrize("name", FIXTURES)
def test_greedy_ids(name):
    for run in runs(name):
        made, tokens = generation(name, run["ids"], limit=24)
        assert [token.id for token in tokens] == run["greedy_ids"] == made.sequence.ids
        assert made.sequence.reason == "length" and made.fed == 23


@pytest.mark.parametrize("piece", [1, 3, 64])
def test_a_prompt_in_pieces(monkeypatch, piece):
    monkeypatch.setattr(device, "PIECE", piece)
    run = max(runs("llama3-rope-causal"), key=lambda run: len(run["ids"]))
    _, tokens = generation("llama3-rope-causal", run["ids"], limit=24)
    assert [token.id for token in tokens] == run["greedy_ids"]


def test_watch_hears_of_every_token():
    heard = []
    ids = list(range(3, 40))
    prefill(model("qwen3-causal"), decoder.caches(model("qwen3-causal")), ids, watch=heard.append)
    assert sum(heard) == len(ids)


def test_ends():
    run = runs("llama-causal")[0]
    made, tokens = generation("llama-causal", run["ids"], ends={run["greedy_ids"][3]}, limit=24)
    assert [token.id for token in tokens] == run["greedy_ids"][:3]
    assert made.sequence.reason == "stop"


def test_fed_tells_what_the_caches_hold():
    """Going on from the caches gives what going on without them gives."""
    run = runs("llama-causal")[1]
    made, tokens = generation("llama-causal", run["ids"], ends={run["greedy_ids"][5]}, limit=24)
    list(tokens)
    held = run["ids"] + [*made.sequence.ids, run["greedy_ids"][5]][: made.fed]
    assert made.caches[0].offset == len(held)
    following = np.array(model("llama-causal")(mx.array([[9]]), cache=made.caches)[0, -1])
    fresh = np.array(model("llama-causal")(mx.array([held + [9]]))[0, -1])
    np.testing.assert_allclose(following, fresh, atol=1e-4)


def test_logprobs():
    run = runs("qwen3-causal")[2]
    first = np.load(os.path.join(ORACLES, "qwen3-causal", "oracle.npz"))["first_logits"]
    made, tokens = generation("qwen3-causal", run["ids"], limit=2, top=4)
    token = next(tokens)
    row = first[runs("qwen3-causal").index(run) + (len(first) - len(runs("qwen3-causal")))]
    want = row - np.log(np.exp(row).sum())
    assert token.logprob == pytest.approx(want[token.id], abs=1e-3)
    assert [i for i, _ in token.top] == np.argsort(-want)[:4].tolist()


def test_seeded_sampling_repeats_itself():
    ids = runs("qwen3-causal")[1]["ids"]

    def run(seed):
        return [t.id for t in generation("qwen3-causal", ids, Sampler(temperature=0.9, seed=seed), limit=20)[1]]

    assert run(3) == run(3) != run(4)


class Only:
    """A guide that allows one list of tokens."""

    watchful = pressed = False

    def __init__(self, ids, size):
        self.ids, self.size = list(ids), size

    def allowed(self):
        return mx.arange(self.size) == self.ids[0]

    def accept(self, token):
        assert token == self.ids.pop(0)

    def done(self):
        return not self.ids


def test_guide():
    made, tokens = generation("llama-causal", [1, 5], guide=Only([7, 8, 9], 660), limit=10)
    assert [token.id for token in tokens] == [7, 8, 9]
    assert made.sequence.reason == "stop" and made.fed == 2


# ---------------------------------------------------------------- drafts


class Oracle(Drafter):
    """Drafts from a given text, some of it wrong."""

    def __init__(self, text, wrong):
        super().__init__([])
        self.text, self.wrong, self.asked, self.right = text, wrong, 0, 0

    def draft(self):
        self.asked += 1
        ahead = self.text[len(self.ids) : len(self.ids) + 5]
        return [(i + 1) % 600 if (len(self.ids) + n) % self.wrong == 0 else i for n, i in enumerate(ahead)]

    def learn(self, seconds, draft, accepted):
        self.right += accepted or 0


@pytest.mark.parametrize("wrong", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("name", FIXTURES)
def test_drafts_do_not_change_the_answer(name, wrong):
    kernels.install()
    for run in runs(name)[:6]:
        drafter = Oracle(run["greedy_ids"], wrong)
        made, tokens = generation(name, run["ids"], limit=24, drafter=drafter)
        assert [token.id for token in tokens] == run[
            "greedy_ids"
        ] == made.sequence.ids and made.sequence.reason == "length"
        assert drafter.asked and (wrong > 2) == bool(drafter.right)
        held = (run["ids"] + made.sequence.ids)[: len(run["ids"]) + made.fed]
        assert made.caches[0].offset == len(held)


def test_a_right_draft_may_end_the_text_before_it_is_told():
    """The sequence has the drafted tokens, repetitions all of them, before the first of them is handed on."""
    from types import SimpleNamespace

    from toast.answer import Streamed

    sequence, told, shown = Sequence((), 5), [], SimpleNamespace(text="")
    shown.add = lambda token: setattr(shown, "text", shown.text + "a")
    streamed = Streamed(shown, sequence, write=told.append, patience=1)
    for id in [7, 7, 7, 7, 7]:
        sequence.take(id)
    for id in [7, 7, 7, 7, 7]:
        streamed.add(id)
    streamed.put(len(shown.text))
    assert "".join(told) == "aaaaa"


@pytest.mark.parametrize("wrong", [1, 2, 3, 7, 1000])
def test_drafts_of_a_text_that_must_not_repeat_itself(wrong):
    """As the default model is sampled: what a draft would repeat, and what the ends have gained, count in it, too."""
    kernels.install()
    for run in range(4):
        plain = sampled(run, dry=2.0, end=0.5)
        assert plain != sampled(run)
        drafter = Oracle(plain[0], wrong)
        assert said(run, drafter, dry=2.0, end=0.5) == plain
        assert (wrong > 2) == bool(drafter.right)


def said(run, drafter=None, **settings):
    """(ids, reason) of a text of 150 tokens at most."""
    ids, sampler = runs("qwen3-causal")[run]["ids"], Sampler(**settings)
    made, tokens = generation("qwen3-causal", ids, sampler, limit=150, ends={7, 34}, drafter=drafter)
    return [token.id for token in tokens], made.sequence.reason


sampled = cache(said)  # what is said without drafts


def test_an_end_among_the_drafts():
    run = runs("llama-causal")[1]
    end = run["greedy_ids"][4]
    made, tokens = generation("llama-causal", run["ids"], limit=24, ends={end}, drafter=Oracle(run["greedy_ids"], 999))
    assert [token.id for token in tokens] == run["greedy_ids"][: run["greedy_ids"].index(end)]
    assert made.sequence.reason == "stop"


def test_a_reader_who_leaves_among_the_drafts():
    run = runs("llama-causal")[1]
    made, tokens = generation("llama-causal", run["ids"], drafter=Oracle(run["greedy_ids"], 999))
    read = []
    for token in tokens:
        read.append(token.id)
        if len(read) == 4:
            made.sequence.stop()
    assert read == made.sequence.ids == run["greedy_ids"][:4]


def test_limit_within_the_drafts():
    run = runs("llama-causal")[1]
    for limit in range(1, 9):
        made, tokens = generation("llama-causal", run["ids"], limit=limit, drafter=Oracle(run["greedy_ids"], 999))
        assert [token.id for token in tokens] == run["greedy_ids"][:limit] and made.sequence.reason == "length"


def test_lookup_finds_the_latest_repetition():
    drafter = Drafter([1, 2, 3, 4, 5, 1, 2, 3, 9, 8, 7, 1, 2])
    assert drafter.draft() == []
    drafter.learn(1.0, [], None)
    drafter.add(3)
    assert drafter.draft() == [9, 8, 7, 1, 2]
    drafter.add(6)
    assert drafter.draft() == []


def test_drafts_that_do_not_pay_stop():
    drafter = Drafter([1, 2, 3, 4] * 5)
    drafter.learn(1.0, [], None)
    while not drafter.silent:
        assert drafter.draft()
        drafter.learn(1.5, drafter.draft(), None)
    assert drafter.draft() == []
    for _ in range(PAUSE):
        drafter.add(1)
    for id in (1, 2, 3):
        drafter.add(id)
    assert drafter.draft()


@pytest.mark.model
def test_default_model_follows_the_reference(smollm2):
    """Every greedy token of the 12 chats, wherever the reference's best two are more than 0.5 apart."""
    kernels.install()
    default, _ = decoder.load(smollm2)
    with open(os.path.join(ORACLES, "smollm2", "chats_oracle.json"), encoding="utf-8") as file:
        chats = json.load(file)
    compared = 0
    for chat in chats:
        ids, want = chat["prompt_ids"], chat["greedy"]
        caches = decoder.caches(default)
        prefill(default, caches, ids[:-1])
        rows = default(mx.array([[ids[-1], *want["ids"][:-1]]]), cache=caches)[0]
        for got, token, gap in zip(mx.argmax(rows, axis=-1).tolist(), want["ids"], want["step_gaps"]):
            compared += gap > 0.5
            assert got == token or gap <= 0.5
    assert compared > 250


@pytest.mark.model
def test_default_model_drafts_and_batches_change_nothing(smollm2):
    """Under our kernels, on quantised weights: plain, drafted and batched give the same ids."""
    from toast.generation.batch_generate import Job, decode

    if kernels.install() == "off":
        pytest.skip("plain MLX is not row-invariant")
    default, _ = decoder.load(smollm2)
    with open(os.path.join(ORACLES, "smollm2", "chats_oracle.json"), encoding="utf-8") as file:
        prompts = [chat["prompt_ids"] for chat in json.load(file)]

    def alone(ids, drafter=None):
        caches = decoder.caches(default)
        prefill(default, caches, ids[:-1])
        run = Generation(default, caches, Sampler(), sequence=Sequence({2}, 40), drafter=drafter)
        list(run.run(ids[-1]))
        return run.sequence.ids

    plain = [alone(ids) for ids in prompts]
    for ids, want in zip(prompts, plain):
        drafter = Oracle(want, 4)
        assert alone(ids, drafter) == want
    jobs = [Job(ids, Sampler(), Sequence({2}, 40)) for ids in prompts]
    list(decode(default, lambda: decoder.caches(default), jobs, rows=5))
    assert [[t.id for t in job.tokens] for job in jobs] == plain
