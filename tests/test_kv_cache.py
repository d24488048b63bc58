"""`--kv-bits`: caches in fewer bits give what the plain ones nearly give, whatever the pieces a text is read in."""

import os
import subprocess
import sys

import mlx.core as mx
import numpy as np
import pytest
from command import command
from tiny_adapter import LLAMA, Change, llama

from toast import kernels
from toast.errors import UsageError
from toast.generation import decoder
from toast.generation.generate import Generation, Sequence, prefill
from toast.generation.kv_cache import QuantizedKV, floats, group_for
from toast.generation.prompt_lookup import Drafter
from toast.generation.sample import Sampler

HEADS = {"num_attention_heads": 2, "num_key_value_heads": 1}  # of 32 dimensions
IDS = np.random.default_rng(0).integers(3, 600, 300).tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return llama(tmp_path_factory.mktemp("kv") / "m", bits=8, **HEADS)


def caches(bits, count=2):
    return [QuantizedKV(bits, 32) for _ in range(count)]


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("group", [32, 64])
@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
def test_codes_become_floats(bits, group, dtype):
    codes = mx.quantize(mx.random.normal((1, 3, 7, 128), key=mx.random.key(1)).astype(dtype), group, bits)
    expected = mx.dequantize(*codes, group, bits).astype(mx.float32)
    error = mx.abs(floats(list(codes), bits, group).astype(mx.float32) - expected).max().item()
    assert error <= {mx.float32: 1e-6, mx.float16: 4e-3, mx.bfloat16: 4e-2}[dtype]


@pytest.mark.parametrize("bits, most", [(8, 0.02), (4, 0.35)])
def test_nearly_what_plain_caches_give(folder, bits, most):
    model = decoder.load(folder)[0]
    plain, found = (np.array(model(mx.array([IDS]), cache=c)[0]) for c in (decoder.caches(model), caches(bits)))
    assert 0 < np.abs(found - plain).max() < most * np.abs(plain).max()


@pytest.mark.parametrize("bits", [8, 4])
def test_any_pieces_give_the_same_bits(folder, bits):
    if kernels.install() == "off":
        pytest.skip("no kernels on this device")
    model, results = decoder.load(folder)[0], []
    for cuts in ([299], [256, 43], [1, 100, 198], [64] * 4 + [43]):
        made, at = caches(bits), 0
        for length in cuts:
            prefill(model, made, IDS[at : at + length])
            at += length
        results.append(np.array(model(mx.array([IDS[at:]]), cache=made)[0, -1]))
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_drafts_change_nothing(folder):
    if kernels.install() == "off":
        pytest.skip("no kernels on this device")
    model, ids, accepted = decoder.load(folder)[0], (IDS[:12] * 6)[:70], []

    def answer(drafter=None):
        made = caches(8)
        prefill(model, made, ids[:-1])
        sampler, sequence = Sampler(), Sequence((), 80, loop_stop=False)
        sampler.begin(ids)
        return [t.id for t in Generation(model, made, sampler, sequence=sequence, drafter=drafter).run(ids[-1])]

    class Knowing(Drafter):
        """Drafts three right tokens and a wrong one."""

        def draft(self):
            right = want[len(self.ids) - len(ids) :][:3]
            return [*right, 1] if right[1:] else []

        def learn(self, seconds, draft, right):
            accepted.append(right)

    want = answer()
    assert answer(Knowing(ids)) == want and accepted.count(2) > 10


def test_how_much_is_kept(folder):
    model, sizes = decoder.load(folder)[0], {}
    for bits in (8, 4):
        made = caches(bits)
        prefill(model, made, IDS)
        sizes[bits] = sum(part.nbytes for cache in made for part in (*cache.keys, *cache.values))
    floats_of = 2 * 2 * 512 * 32 * 4  # layers, keys and values, positions, dimensions, bytes
    assert sizes[8] == floats_of * 10 // 32 and sizes[4] == floats_of * 6 // 32  # codes, and 64 bits for 32 numbers


def test_trimmed_rows_are_forgotten(folder):
    model = decoder.load(folder)[0]
    one, other = caches(8), caches(8)
    prefill(model, one, IDS[:50])
    assert [cache.trim(20) for cache in one] == [20, 20]
    prefill(model, other, IDS[:30])
    found = [np.array(model(mx.array([IDS[30:40]]), cache=c)) for c in (one, other)]
    np.testing.assert_allclose(*found, atol=1e-5)


def test_groups(folder, tmp_path):
    def group(path):
        model = decoder.load(path)[0]
        return group_for(model, decoder.caches(model), "m")

    assert group(folder) == 32
    assert group(llama(tmp_path / "wide", num_attention_heads=1, num_key_value_heads=1)) == 64
    with pytest.raises(UsageError, match="heads of 16 dimensions, not a multiple of 32"):
        group(LLAMA)


# ---------------------------------------------------------------- the command


def toast(*words, **options):
    return command("toast", *words, **options)


def test_models_that_cannot(tmp_path):
    toast("-m", LLAMA, "--kv-bits", "8", "hi").fails("--kv-bits", "heads of 16 dimensions")
    more = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
    window = llama(tmp_path / "window", **HEADS, **more)
    toast("-m", window, "--kv-bits", "4", "hi").fails("--kv-bits", "caches of other kinds", "RotatingKVCache")
    assert toast("-m", window, "-n", "2", "hi").ok().out
    toast("-m", LLAMA, "--kv-bits", "5", "hi").fails("--kv-bits must be 8 or 4")


def test_each_is_one_by_one(folder, tmp_path):
    adapter = Change(["model.layers.1.mlp.up_proj"]).peft(tmp_path / "a", folder)
    for words in (["-m", folder], ["-m", adapter]):
        words += ["--kv-bits", "8", "-n", "12", "-t", "0"]
        records = [b"the cat sat", b"blue", b"a dog ran fast"]
        lines = toast(*words, "--each", stdin=b"\n".join(records)).ok().out.splitlines()
        assert lines == [b" ".join(toast(*words, stdin=r).ok().out.split()) for r in records]
        assert toast(*words, "--samples", "2", "-t", "1.5", "hi").ok().out.count(b"\n") == 2
        assert toast(*words, "--choice", "red,blue", "hi").ok().out in (b"red\n", b"blue\n")
        assert toast(*words, "--dry-run", "hi").status == 0


def test_the_cache_of_prompts_knows_the_bits(folder, tmp_path):
    """And gives the bytes that are given without it."""
    code = "from toast import answer; answer.WORTH_KEEPING = 0; from toast.cli import toast; toast()"  # else 0.5 s
    text = b"the cat sat on a mat. " * 15

    def run(*more):
        argv = [sys.executable, "-c", code, "-v", "-n", "16", "-t", "0", "-m", folder, *more]
        ran = subprocess.run(argv, input=text, capture_output=True, env={**os.environ, "TOAST_HOME": str(tmp_path)})
        assert ran.returncode == 0, ran.stderr
        return ran.stdout, b" 0 known" in ran.stderr

    forms = [["--kv-bits", "8"], ["--kv-bits", "4"], []]
    first = [run(*form) for form in forms]
    assert all(unknown for _, unknown in first)
    assert [run(*form) for form in forms] == [(out, False) for out, _ in first]
    assert [run(*form, "--no-cache") for form in forms] == first
