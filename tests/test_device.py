"""What is decided otherwise on a GPU, by MLX's own ops on the CPU: the answers stay what they are."""

import os
import time
from functools import cache
from statistics import median

import mlx.core as mx
import pytest
import test_batch_generate
from test_batch_generate import alone, prompts
from test_every_architecture import NAMES, RECORDS, REFUSED, listed, made, toast  # noqa: F401  a fixture

from toast import kernels
from toast.generation import decoder, device, ragged_cache
from toast.generation.batch_generate import Job, decode
from toast.generation.generate import Generation, Sequence, prefill
from toast.generation.sample import Sampler

LLAMA, ROWS = "llama-causal", 5
LONG = [(7 * i * i + 3 * i) % 600 + 8 for i in range(2500)]


@pytest.fixture
def gpu(monkeypatch):
    """Decide as on a GPU."""
    monkeypatch.setattr(kernels, "on_gpu", lambda: True)


def model(name=LLAMA):
    return test_batch_generate.model(name)


class Counted:
    """A model that notes the shapes of what it is fed."""

    def __init__(self, model):
        self.model, self.layers, self.fed = model, model.layers, []

    def __call__(self, ids, cache):
        self.fed.append(tuple(ids.shape))
        return self.model(ids, cache=cache)


def said(ids, count=12):
    counted, caches = Counted(model()), decoder.caches(model())
    prefill(counted, caches, ids[:-1])
    run = Generation(counted, caches, Sampler(), sequence=Sequence((), count, loop_stop=False))
    return [token.id for token in run.run(ids[-1])], [length for _, length in counted.fed if length > 1]


def test_larger_pieces_give_the_same_answer(monkeypatch):
    plain, pieces = said(LONG)
    monkeypatch.setattr(kernels, "on_gpu", lambda: True)
    found, larger = said(LONG)
    assert found == plain and (pieces, larger) == ([512] * 4 + [451], [2048, 451])


def test_freed_buffers_go_back_after_each_piece(monkeypatch):
    cleared = []
    monkeypatch.setattr(mx, "clear_cache", lambda: cleared.append(True))
    said(LONG)
    assert not cleared
    monkeypatch.setattr(kernels, "on_gpu", lambda: True)
    said(LONG, 1)
    assert len(cleared) == 2
    said([5, 6], 2 * device.OFTEN)
    assert len(cleared) == 2 + 1 + 2


def test_weights_stay_resident_within_what_metal_recommends(monkeypatch):
    limits = []
    monkeypatch.setattr(mx, "set_wired_limit", limits.append)
    monkeypatch.setattr(device, "_wired", 0)
    device.wire(model())
    assert not limits
    size = os.path.getsize(os.path.join(test_batch_generate.ORACLES, LLAMA, "model.safetensors"))
    most = device.HEADROOM + int(1.5 * size)
    monkeypatch.setattr(kernels, "on_gpu", lambda: True)
    monkeypatch.setattr(mx, "device_info", lambda: {"max_recommended_working_set_size": most})
    device.wire(model())
    device.wire(model())
    assert abs(limits[0] - device.HEADROOM - size) < 20_000 and limits[1:] == [most]


# ---------------------------------------------------------------- a step ahead


class Even:
    """A guide that allows even tokens, refuses multiples of four at second sight, and ends after `count` of them."""

    idle, watchful, pressed = False, True, False

    def __init__(self, count, size):
        self.count, self.ids = count, mx.arange(size)

    def allowed(self):
        return self.ids % 2 == 0

    def refused(self, token):
        return None if token % 4 else self.ids % 4 == 2

    def accept(self, token):
        assert token % 4 == 2
        self.count -= 1

    def done(self):
        return self.count == 0


KINDS = [
    lambda n, size: (Sampler(), Sequence({7, 34}, 3 + n), None),
    lambda n, size: (Sampler(temperature=0.9, top_k=20, seed=n), Sequence((), 2 + n % 9), None),
    lambda n, size: (Sampler(), Sequence((), 30, Even(1 + n % 7, size)), None),
    lambda n, size: (Sampler(), Sequence({7, 34}, 1 + n % 12), 3),
    lambda n, size: (Sampler(dry=2.0, end=0.5), Sequence({7, 34}, 40), None),
    lambda n, size: (Sampler(repeat_penalty=1.3), Sequence((), 12), None),
    lambda n, size: (Sampler(), Sequence((), 1), None),
]


def mixed(name):
    """(ids, sampler, sequence, top) of texts that ask for all kinds of things."""
    size = model(name)(mx.array([[1]])).shape[-1]
    return [(ids, *KINDS[n % len(KINDS)](n, size)) for n, ids in enumerate(prompts(name) * 2)]


def told(job):
    return [(t.id, t.logprob, t.top) for t in job.tokens], job.sequence.reason


@cache
def apart(name):
    """The same texts one by one."""
    found = []
    for ids, sampler, sequence, top in mixed(name):
        caches = decoder.caches(model(name))
        sampler.begin(ids, sequence)
        prefill(model(name), caches, ids[:-1])
        run = Generation(model(name), caches, sampler, sequence=sequence, top=top)
        found.append(([(t.id, t.logprob, t.top) for t in run.run(ids[-1])], sequence.reason))
    return found


@pytest.mark.parametrize("waits", [0, 3])
@pytest.mark.parametrize("rows", [1, 3, 16])
@pytest.mark.parametrize("name", ["llama-causal", "qwen3-causal", "llama3-rope-causal"])
def test_a_step_ahead_gives_the_same_texts(gpu, monkeypatch, name, rows, waits):
    """Rows that end at a token, at a limit, by a guide, taken again at once or later."""
    ahead, begin = [], ragged_cache.Masked.look_ahead
    monkeypatch.setattr(
        ragged_cache.Masked, "look_ahead", lambda self, tokens: (ahead.append(len(self.rows)), begin(self, tokens))[1]
    )
    jobs = [Job(ids, sampler, sequence, top=top) for ids, sampler, sequence, top in mixed(name)]

    def arriving():
        for n, job in enumerate(jobs):
            yield job
            for _ in range(n % (waits + 1)):
                if any(job.tokens and job.sequence.reason is None for job in jobs):
                    yield None

    assert len(list(decode(model(name), lambda: decoder.caches(model(name)), arriving(), rows=rows))) == len(jobs)
    assert ahead and max(ahead) <= rows
    for job, (tokens, reason) in zip(jobs, apart(name), strict=True):
        found, why = told(job)
        assert ([t[0] for t in found], why) == ([t[0] for t in tokens], reason)
        for (_, logprob, top), (_, expected, others) in zip(found, tokens, strict=True):
            assert logprob == pytest.approx(expected, abs=1e-4) and [i for i, _ in top] == [i for i, _ in others]


def test_no_row_of_the_last_step_is_computed_again(gpu):
    """Each row has a step for each token but the last one of the limit, and the prompts one call for what they share
    and one for the rest."""
    counted = Counted(model())
    head = [5, 6, 7, 8]
    jobs = [Job([*head, *range(20, 22 + n), 9], Sampler(), Sequence((), 6, loop_stop=False)) for n in range(4)]
    list(decode(counted, lambda: decoder.caches(model()), jobs, rows=4))
    assert counted.fed == [(1, 6), (3, 3), *[(4, 1)] * 6]


def test_prompts_are_read_side_by_side_in_pieces(gpu, monkeypatch):
    monkeypatch.setattr(device, "GPU_PIECE", 64)
    counted, texts = Counted(model()), [LONG[n : n + size] for n, size in enumerate((50, 1, 33, 90, 2))]
    jobs = [Job(ids, Sampler(), Sequence((), 8, loop_stop=False)) for ids in texts]
    list(decode(counted, lambda: decoder.caches(model()), jobs, rows=ROWS))
    assert counted.fed[:3] == [(4, 16), (3, 21), (2, 32)]
    for job, ids in zip(jobs, texts, strict=True):
        assert told(job)[0] == alone(LLAMA, ids, Sampler(), 8)[0]


@pytest.mark.parametrize("name", listed([name for name in NAMES if name not in REFUSED]))
def test_each_as_on_a_gpu(name, made, gpu, monkeypatch):  # noqa: F811
    """Prompts side by side, a step ahead: every architecture says of each record what it says of it alone."""
    folder = made(name)
    each = toast(folder, "-n", "4", "--each", stdin=RECORDS).ok().out.split(b"\n")
    for record, found in zip(RECORDS.split(b"\n"), each, strict=True):
        if record:
            single = toast(folder, "-n", "4", "--no-cache", "--no-input", record.decode()).ok().out
            assert found.split() == single.split(), record


# ---------------------------------------------------------------- what waits for what


class Slow:
    """A model whose step is a product of large matrices: few ops, since MLX on a CPU waits with the eleventh."""

    def __init__(self):
        self.large = mx.random.normal((512, 512))
        mx.eval(self.large)

    def __call__(self, ids, cache):
        nothing = (self.large @ (self.large * ids[0, 0])).max() * 0
        return (mx.arange(640) == ids[..., None] + 1) + nothing


def test_the_next_step_runs_while_a_token_is_read():
    """A reader who takes twice as long as a step is all that it takes."""
    model = Slow()

    def seconds(pause, count=8):
        tokens, found = Generation(model, [], Sampler()).run(5), []
        next(tokens)
        for n in range(count):
            start = time.perf_counter()
            assert next(tokens).id == 7 + n
            time.sleep(pause)
            found.append(time.perf_counter() - start)
        return median(found)

    def overlaps():
        step = seconds(0)
        return seconds(2 * step) < 2.6 * step

    assert any(overlaps() for _ in range(5))  # others may use the machine in between
