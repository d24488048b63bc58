"""Texts of several threads at one model must be what each is alone: the same tokens, from the same bits."""

import threading
from functools import partial

import mlx.core as mx
import pytest
from test_batch_generate import QUANTISED, alone, model, our_kernels, prompts  # noqa: F401  a fixture

from toast import cancel, kernels
from toast.generation import decoder, shared_model
from toast.generation.generate import Generation, Sequence, prefill
from toast.generation.prompt_lookup import Drafter
from toast.generation.sample import Sampler
from toast.generation.shared_model import Seat, SharedModel

LIMITS = [3, 24, 9, 1, 60, 24, 5, 30, 2, 11, 24, 8]


@pytest.fixture
def shared():
    if kernels.variant() == "off":
        pytest.skip("plain MLX takes no batches of texts")
    return SharedModel(model(QUANTISED))


class Guide:
    """Allows some tokens alone, others each time."""

    watchful = idle = pressed = False

    def __init__(self, step=3):
        self.step, self.place = step, 0

    def allowed(self):
        return mx.arange(660) % self.step == self.place % self.step

    def accept(self, id):
        self.place += 1

    def done(self):
        return False


def text(shared, ids, limit, *, sampler=None, guide=None, top=None, draft=False, slow=None):
    """What a text is at a seat of the shared model."""
    caches = decoder.caches(shared.model)
    seat, sampler, sequence = shared.seat(caches), sampler or Sampler(), Sequence((7, 34), limit, guide)
    try:
        sampler.begin(ids, sequence)
        prefill(seat, caches, ids[:-1])
        drafter = Drafter(ids) if draft else None
        generation = Generation(seat, caches, sampler, sequence=sequence, top=top, drafter=drafter)
        found = []
        for token in generation.run(ids[-1]):
            found.append((token.id, token.logprob, token.top))
            if slow:
                slow(found)
        return found, sequence.reason
    finally:
        seat.leave()


def at_once(works):
    """What each work gives, in a thread of its own; all begin together."""
    start, found = threading.Barrier(len(works)), [None] * len(works)

    def run(n):
        start.wait()
        try:
            found[n] = works[n]()
        except BaseException as error:
            found[n] = error

    threads = [threading.Thread(target=run, args=(n,), daemon=True) for n in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a text never came to its end"
    return found


def cases():
    """(ids, limit, what else) of texts of all kinds."""
    kinds = [
        dict, lambda: {"sampler": Sampler(temperature=0.9, top_k=20, seed=4)}, lambda: {"top": 3},
        lambda: {"guide": Guide()}, lambda: {"draft": True}, lambda: {"sampler": Sampler(dry=2.0, end=0.5)},
    ]  # fmt: skip
    texts = prompts(QUANTISED) + [list(range(40, 640)), [5, 6, 7, 8] * 40]
    return [(texts[n % len(texts)], LIMITS[n % len(LIMITS)], kinds[n % len(kinds)]) for n in range(18)]


def test_together_is_alone(shared):
    want = [text(SharedModel(shared.model), ids, limit, **kind()) for ids, limit, kind in cases()]
    assert [w for w, (_, _, kind) in zip(want, cases()) if not kind()] == [
        alone(QUANTISED, ids, Sampler(), limit, {7, 34}) for ids, limit, kind in cases() if not kind()
    ]
    for _ in range(3):
        found = at_once([partial(text, shared, ids, limit, **kind()) for ids, limit, kind in cases()])
        assert found == want
    assert shared.seats == 0 and not shared.waiting and not shared.before


def counted(monkeypatch):
    """How many texts each call has had."""
    sizes, forward = [], shared_model.forward_parts
    monkeypatch.setattr(
        shared_model, "forward_parts", lambda model, parts: (sizes.append(len(parts)), forward(model, parts))[1]
    )
    return sizes


def test_texts_go_through_the_model_in_one_call(shared, monkeypatch):
    sizes = counted(monkeypatch)
    ids = prompts(QUANTISED)[0]
    at_once([partial(text, shared, ids, 200, sampler=Sampler(temperature=2.0, seed=n)) for n in range(8)])
    assert sum(size for size in sizes if size > 4) > 0.7 * sum(sizes), sizes


def test_a_slow_reader_stops_nobody(shared):
    held, ids = threading.Event(), prompts(QUANTISED)[0]
    want = text(SharedModel(shared.model), ids, 40)

    def waits(found):
        if len(found) == 3:
            assert held.wait(30)

    def quick():
        found = [text(shared, ids, 40) for _ in range(3)]
        held.set()
        return found

    found = at_once([partial(text, shared, ids, 40, slow=waits), quick])
    assert found == [want, [want] * 3]


def test_one_that_is_called_off_ends_alone(shared):
    ids = prompts(QUANTISED)[0]
    want = text(SharedModel(shared.model), ids, 60)

    class Job:
        steps = 0

        def check(self):
            self.steps += 1
            if self.steps == 9:
                raise cancel.Cancelled

    def called_off():
        cancel.here.job = Job()
        text(shared, ids, 60)

    found = at_once([partial(text, shared, ids, 60), called_off, partial(text, shared, ids, 60)])
    assert isinstance(found[1], cancel.Cancelled) and [found[0], found[2]] == [want, want]
    assert shared.seats == 0


def test_a_call_that_fails_ends_its_texts(shared, monkeypatch):
    """Whose memory it was that ran out nobody knows; later texts are none the worse."""
    ids, forward, calls = prompts(QUANTISED)[0], shared_model.forward_parts, []

    def fails(model, parts):
        calls.append(parts)
        if len(calls) == 5:
            raise MemoryError
        return forward(model, parts)

    monkeypatch.setattr(shared_model, "forward_parts", fails)
    found = at_once([partial(text, shared, ids, 30)] * 4)
    assert any(isinstance(end, MemoryError) for end in found)
    want = text(SharedModel(shared.model), ids, 30)
    assert [end for end in found if not isinstance(end, MemoryError)].count(want) == 4 - sum(
        isinstance(end, MemoryError) for end in found
    )
    assert text(shared, ids, 30) == want and shared.seats == 0


def test_a_long_prompt_comes_in_slices_beside_others(shared, monkeypatch):
    most, forward = [], shared_model.forward_parts

    def watched(model, parts):
        if any(part.wanted for part in parts):
            most.append(sum(len(part.ids) for part in parts if not part.wanted))
        return forward(model, parts)

    monkeypatch.setattr(shared_model, "forward_parts", watched)
    long, short = [9 + n % 600 for n in range(3000)], prompts(QUANTISED)[0]
    want = text(SharedModel(shared.model), long, 3)
    found = at_once(
        [partial(text, shared, long, 3), partial(text, shared, short, 300, sampler=Sampler(temperature=2.0))]
    )
    assert found[0] == want and 0 < max(most) <= shared_model.SLICE


def test_others_use_the_model_itself():
    """Of unfused layers, and of caches that are not plain keys and values."""
    qwen = SharedModel(model("qwen3-causal"))
    assert qwen.seat(decoder.caches(qwen.model)) is qwen.model
    fused = SharedModel(model(QUANTISED))
    assert fused.seat([object()]) is fused.model
    if kernels.variant() != "off":
        assert isinstance(fused.seat(decoder.caches(fused.model)), Seat)
