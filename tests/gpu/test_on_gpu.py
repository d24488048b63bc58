"""On a GPU: what the CPU says, as fast as MLX-LM, and nothing that holds the device up."""

import json
import os
import subprocess
import sys
import time

import every_architecture
import mlx.core as mx
import numpy as np
import pytest
from command import command
from tiny_adapter import llama

from toast.encoding import length_batches
from toast.generation import decoder, device
from toast.generation.batch_generate import Job, decode
from toast.generation.generate import Generation, Sequence, prefill
from toast.generation.sample import Sampler
from toast.store import safetensors, weights

HERE = os.path.dirname(os.path.abspath(__file__))
BENCH = os.path.join(os.path.dirname(HERE), "bench", "gpu.py")
ORACLES = os.path.join(os.path.dirname(HERE), "oracles")
CAUSAL = ["llama-causal", "qwen3-causal", "llama3-rope-causal"]
QUESTIONS = b"What is a filter?\nName three fruits.\nWhat is the capital of France?\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("gpu") / "llama"
    every_architecture.save("llama", path)
    return path


def runs(name):
    with open(os.path.join(ORACLES, name, "oracle.json"), encoding="utf-8") as file:
        return [run for run in json.load(file)["runs"] if run["ids"]]


# ---------------------------------------------------------------- the same answers


@pytest.mark.parametrize("name", CAUSAL)
def test_transformers_tokens(name):
    model = decoder.load(os.path.join(ORACLES, name))[0]
    for run in runs(name):
        caches = decoder.caches(model)
        prefill(model, caches, run["ids"][:-1])
        made = Generation(model, caches, Sampler(), sequence=Sequence((), 12))
        assert [token.id for token in made.run(run["ids"][-1])] == run["greedy_ids"][:12]


@pytest.mark.parametrize("name", CAUSAL)
def test_transformers_tokens_in_a_batch(name):
    model = decoder.load(os.path.join(ORACLES, name))[0]
    jobs = [Job(run["ids"], Sampler(), Sequence((), 3 + n % 10)) for n, run in enumerate(runs(name))]
    list(decode(model, lambda: decoder.caches(model), jobs, rows=3))
    for job, run in zip(jobs, runs(name)):
        assert [token.id for token in job.tokens] == run["greedy_ids"][: job.sequence.limit]


@pytest.mark.parametrize("words", [[], ["--each"], ["--choice", "yes,no"]])
def test_the_command_says_what_it_says_on_a_cpu(folder, on_cpu, words):
    given = ["-m", folder, "-t", "0", "-n", "6", "-q", "--no-cache", "--no-template", *words]
    if words == ["--each"]:
        asked = {"stdin": b"abc\nthe dog ran to the other side of it\nx y z\n"}
    else:
        given, asked = [*given, "the cat sat on a mat"], {}
    assert command("toast", *given, **asked).ok().out == on_cpu("toast", *given, **asked).ok().out


def test_quantised_caches(tmp_path, on_cpu):
    folder = llama(tmp_path / "m", bits=8, num_attention_heads=2, num_key_value_heads=1)
    given = ["-m", folder, "-t", "0", "-n", "4", "-q", "--no-cache", "--kv-bits", "8", "the cat sat on a mat"]
    assert command("toast", *given).ok().out == on_cpu("toast", *given).ok().out


@pytest.mark.model
def test_the_default_model_says_what_it_says_on_a_cpu(real, on_cpu, monkeypatch):
    monkeypatch.setenv("TOAST_HOME", real["TOAST_HOME"] or "")
    given = ["-t", "0", "-n", "8", "-q", "--no-cache", "--each"]
    assert command("toast", *given, stdin=QUESTIONS).ok().out == on_cpu("toast", *given, stdin=QUESTIONS).ok().out


def test_vectors_are_the_cpus(model, on_cpu):
    lines = "".join(f"{n} {'the cat sat on a mat ' * (n % 5)}\n" for n in range(1000)).encode()
    here, there = (
        np.array(
            [
                json.loads(line)["embedding"]
                for line in run("embed", "-m", model, "--json", stdin=lines).out.splitlines()
            ]
        )
        for run in (command, on_cpu)
    )
    assert here.shape == there.shape and len(here) == 1000 and np.abs(here - there).max() <= 1e-3


# ---------------------------------------------------------------- nothing in its way


def test_no_memory_limit_is_ours():
    before = mx.get_memory_limit()
    seen = []

    def rows(group):
        seen.append(mx.get_memory_limit())
        return mx.zeros((len(group), 4))

    class Part:
        ids = [1, 2, 3]

    length_batches.compute(rows, [Part() for _ in range(300)])
    assert set(seen) == {before} == {mx.get_memory_limit()} and len(seen) > 1


def test_prompts_are_read_by_2048():
    assert device.piece() == 2048


def test_freed_buffers_are_given_back():
    model = decoder.load(os.path.join(ORACLES, CAUSAL[0]))[0]
    prefill(model, decoder.caches(model), [5] * 300)
    assert mx.get_cache_memory() == 0


def test_the_next_step_is_under_way_while_a_token_is_read(tmp_path):
    """A reader who takes as long as a step costs next to nothing: the device works meanwhile."""
    subprocess.run([sys.executable, BENCH, "small", "--keep", tmp_path, "--runs", "0"], check=True)
    model = decoder.load(str(tmp_path / "small"))[0]

    def seconds(pause, count=64):
        run = Generation(model, decoder.caches(model), Sampler(), sequence=Sequence((), count + 8, loop_stop=False))
        tokens = run.run(5)
        for _ in range(8):
            next(tokens)
        start = time.perf_counter()
        for _ in range(count):
            next(tokens)
            until = time.perf_counter() + pause
            while time.perf_counter() < until:
                pass
        return (time.perf_counter() - start) / count

    step = min(seconds(0) for _ in range(3))
    assert min(seconds(step) for _ in range(3)) < 1.5 * step


def test_weights_are_mapped(tmp_path, metal):
    path = tmp_path / "model.safetensors"
    arrays = {"a": mx.random.normal((64, 1024)), "b": mx.arange(1 << 15), "c": mx.ones((512, 64), mx.bfloat16)}
    path.write_bytes(b"".join(map(bytes, safetensors.pack(arrays, {}))))
    with open(path, "rb") as file:
        found = weights.shared(file.fileno(), weights._header(file.fileno()))
    assert len(found) >= 2 and all(mx.array_equal(array + 0, arrays[name]).item() for name, array in found.items())


def test_weights_stay_resident(folder, metal):
    model = decoder.load(str(folder))[0]
    device.wire(model)
    limit = mx.set_wired_limit(0)
    mx.set_wired_limit(limit)
    most = mx.device_info()["max_recommended_working_set_size"]
    assert limit == min(device._wired + device.HEADROOM, most)


# ---------------------------------------------------------------- as fast as MLX-LM


@pytest.mark.parametrize("shape", [pytest.param(shape, marks=pytest.mark.long) for shape in ("small", "7b")])
def test_as_fast_as_mlx_lm(shape, tmp_path):
    ran = subprocess.run([sys.executable, BENCH, shape, "--json", "--runs", "5"], stdout=subprocess.PIPE, check=True)
    found = json.loads(ran.stdout)
    for what in ("prompt", "decode"):
        ours, theirs = (max(run[what] for run in found[program]) for program in ("ours", "theirs"))
        assert ours >= 0.95 * theirs, (what, found)
    assert found["ours"][0]["ids"][:8] == found["theirs"][0]["ids"][:8]
