"""Loop stop and DRY: what a text repeats of itself, told from lists, tables and refrains."""

import json
import os
import random

import mlx.core as mx
import pytest
from command import command
from hypothesis import given
from hypothesis import strategies as st

from toast.generation.generate import Sequence
from toast.generation.repetition import COPIES, LEAST, PERIOD, Repetition
from toast.generation.sample import DRY_ALLOWED, Sampler


def told(ids):
    repetition = Repetition()
    for id in ids:
        repetition.add(id)
    return repetition


@given(ids=st.lists(st.integers(0, 3), max_size=60))
def test_runs_are_what_they_say(ids):
    found = told(ids).runs
    for d in range(1, len(ids)):
        run = 0
        while run + d < len(ids) and ids[-1 - run] == ids[-1 - run - d]:
            run += 1
        assert found.get(d, 0) == run


@pytest.mark.parametrize("period", [1, 2, 3, 17, 48, 64, 100, 200, PERIOD])
def test_a_cycle_is_found_and_its_first_copy_kept(period):
    start = [-n for n in range(1, 20)]
    cycle = list(range(1000, 1000 + period))
    sequence = Sequence()
    for id in (start + cycle * 400)[:5000]:
        assert sequence.take(id)
        if sequence.reason:
            break
    assert sequence.reason == "loop" and sequence.kept == len(start) + period
    assert len(sequence.ids) == len(start) + period + max(COPIES * period, LEAST)


def test_what_changes_is_no_cycle():
    table = [token for row in range(300) for token in (1, row + 10, 2, 3)]
    chorus = list(range(500, 560))
    song = [token for verse in range(6) for token in (*range(verse * 40, verse * 40 + 40), *chorus, *chorus)]
    noise = random.Random(0).choices(range(5), k=3000)
    for ids in (table, song, noise, [7] * (LEAST - 1)):
        sequence = Sequence()
        assert all(sequence.take(id) and sequence.reason is None for id in ids)
    sequence = Sequence(loop_stop=False)
    assert all(sequence.take(7) and sequence.reason is None for _ in range(1000))


def sampler(prompt=(), text=(), ends=(9,), **settings):
    made, sequence = Sampler(**settings), Sequence(ends)
    made.begin(list(prompt), sequence)
    for id in text:
        sequence.take(id)
    return made


def test_dry_turns_away_from_what_was_said():
    text = [1, 2, 3, 4, 5, 0, 1, 2, 3, 4]  # 5 came next before
    logits = mx.array([0.0, 0, 0, 0, 0, 5, 4, 0, 0, 1])
    assert DRY_ALLOWED == 4
    assert sampler(text=text)(logits).item() == 5
    assert sampler(text=text, dry=2.0)(logits).item() == 6
    assert sampler(text=text, dry=2.0, prompt=text[:5])(logits).item() == 5  # the prompt says it, too
    assert sampler(text=text, dry=2.0)(logits, mx.arange(10) == 5).item() == 5  # a constraint knows better
    assert sampler(text=text, dry=2.0, end=6.0)(logits).item() == 9  # and has nothing more to say


def test_a_token_asked_for_twice_is_the_same():
    """As a draft's verification does; what the ends gain counts once."""
    made = sampler(text=[1, 2, 3, 4, 5, 0, 1, 2, 3, 4], dry=0.5, end=2.0)
    logits = mx.array([0.0, 0, 0, 0, 0, 5, 4, 0, 0, 1])
    assert [made(logits).item() for _ in range(5)] == [5] * 5


@pytest.mark.model
@pytest.mark.parametrize("more", [(), ("--json",), ("--each",)])
def test_an_answer_that_repeats_itself_ends(more, real):
    """Without its penalty the default model sings on as it was begun; what is written says it once."""
    words = ["toast", "--dry", "0", "-n", "200", "--prefill", "The sea, the sea, the sea, the sea, the", *more]
    stdin = b"sing\n"
    ran = command(*words, "--strict", stdin=stdin, env=real)
    endless = command(*words, "--no-loop-stop", stdin=stdin, env=real).ok(quiet=False)
    assert ran.status == 3 and b"--no-loop-stop lets it go on" in ran.err, ran
    assert 0 < len(ran.out) < len(endless.out) / 4
    if more == ("--json",):
        assert json.loads(ran.out)["finish_reason"] == "loop" and json.loads(endless.out)["finish_reason"] == "length"
    else:
        assert endless.out.startswith(ran.out.rstrip(b"\n"))


@pytest.mark.model
def test_the_default_model_ends_by_itself(real):
    for words, stdin in ((("write a haiku about pipes",), None), (("explain",), b"x = [i * i for i in range(9)]\n")):
        ran = command("toast", "--json", *words, stdin=stdin, env=real).ok()
        assert b'"finish_reason": "stop"' in ran.out


@pytest.mark.model
@pytest.mark.parametrize("instruction", [
    "write a haiku about pipes", "count to ten, three times",  # few drafts are accepted, and many
    pytest.param("explain rain", marks=pytest.mark.long),
])  # fmt: skip
def test_every_way_to_ask_gives_the_same_answer(instruction, real, tmp_path):
    """By default: drafted, not drafted (--json), in a batch, in a conversation, with its prompt read before."""
    words = ("-n", "64", instruction)
    home = {**real, "TOAST_HOME": str(tmp_path)}
    store = real["TOAST_HOME"] or os.path.expanduser("~/.cache/toast")
    os.symlink(os.path.join(store, "models"), tmp_path / "models")

    def said(*more, stdin=None):
        return command("toast", *words, *more, stdin=stdin, env=home).ok(quiet=False).out.decode()

    whole = said("--no-cache")
    line = " ".join(whole.splitlines()).strip() + "\n"
    assert json.loads(said("--json"))["text"] + "\n" == whole
    assert said() == said() == said("--session", "one") == whole  # the second finds what the first has read
    assert said("--samples", "2") == line * 2
    texts = ["the sea", "a cat and a dog\tsit on a mat", "", "the sea", "7 8 9"]
    each = said("--each", stdin="".join(f"{text}\n" for text in texts).encode()).splitlines()
    alone = {text: " ".join(said(stdin=text.encode()).splitlines()).strip() for text in set(texts) - {""}}
    assert each == [alone.get(text, "") for text in texts]
