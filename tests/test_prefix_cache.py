"""The prefix cache: what comes out of it has the same bits, whatever happened to its files."""

import json
import os
import subprocess
import sys
from functools import cache

import mlx.core as mx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toast import kept, kernels
from toast.generation import decoder, prefix_cache
from toast.generation.generate import Generation, Sequence, prefill
from toast.generation.prefix_cache import BLOCK, PrefixCache
from toast.generation.prefix_file import pack, unpack
from toast.generation.sample import Sampler

ORACLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles")
LLAMA = os.path.join(ORACLES, "llama-causal")
IDS = [1, *(3 + i * 7 % 600 for i in range(300))]


@pytest.fixture(autouse=True)
def our_kernels():
    kernels.install()


@cache
def model(path=LLAMA):
    return decoder.load(path)[0]


def answer(store, ids, path=LLAMA, count=12):
    """(tokens with logprobs, how many ids were known) of a process with this store."""
    caches = decoder.caches(model(path))
    known = store.find(caches, ids)
    read = known
    for pause in store.boundaries(caches, ids):
        if pause > read:
            prefill(model(path), caches, ids[read:pause])
            store.mark(caches, pause)
            read = pause
    prefill(model(path), caches, ids[read:-1])
    run = Generation(model(path), caches, Sampler(), sequence=Sequence(limit=count), top=2)
    tokens = [(t.id, t.logprob, t.top) for t in run.run(ids[-1])]
    store.keep(caches, (ids + run.sequence.ids)[: len(ids) + run.fed], len(ids))
    return tokens, known


def new(folder, path=LLAMA, limit=1 << 30):
    return PrefixCache(str(folder), path, limit)


def files(folder):
    return sorted(os.path.join(folder, name) for name in os.listdir(folder))


def same(a, b):
    """Bit for bit under our kernels; plain MLX is not row-invariant."""
    return a == b if kernels.variant() != "off" else [t[0] for t in a] == [t[0] for t in b]


def test_a_second_process_reads_only_the_rest(tmp_path):
    cold, known = answer(new(tmp_path), IDS)
    assert known == 0
    warm, known = answer(new(tmp_path), IDS)
    assert known == 300 // BLOCK * BLOCK and same(warm, cold)
    other = IDS[:200] + [9] * 30
    want, _ = answer(new(tmp_path / "empty"), other)
    got, known = answer(new(tmp_path), other)
    assert known == 200 // BLOCK * BLOCK and same(got, want)


def test_the_answer_is_kept_too(tmp_path):
    """A conversation goes on where it was: the answer need not be read as part of the next prompt."""
    tokens, _ = answer(new(tmp_path), IDS[:60], count=80)
    longer = IDS[:60] + [t[0] for t in tokens] + [5, 6]
    want, _ = answer(new(tmp_path / "empty"), longer)
    got, known = answer(new(tmp_path), longer)
    assert known == 128 and same(got, want)


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "foreign", "swap"])
def test_damaged_files_are_rebuilt(tmp_path, damage):
    cold, _ = answer(new(tmp_path), IDS)
    first, second, *_ = files(tmp_path)
    data = bytearray(open(first, "rb").read())
    if damage == "flip":
        data[-100] ^= 1
    elif damage == "truncate":
        del data[-1:]
    elif damage == "empty":
        data.clear()
    elif damage == "foreign":
        data[:] = b"something else entirely " * 50
    else:  # another block's bytes under this name
        data[:] = open(second, "rb").read()
    open(first, "wb").write(data)
    got, known = answer(new(tmp_path), IDS)
    assert same(got, cold) and known < 256
    assert answer(new(tmp_path), IDS)[1] == 256


def test_another_model_or_version_is_another_key(tmp_path, monkeypatch):
    answer(new(tmp_path), IDS)
    assert answer(new(tmp_path, os.path.join(ORACLES, "qwen3-causal")), IDS[:100])[1] == 0
    monkeypatch.setattr(kernels, "VERSION", "other")
    assert answer(new(tmp_path), IDS)[1] == 0


def test_private_bounded_and_oldest_first(tmp_path):
    folder = tmp_path / "p"
    answer(new(folder), IDS)
    assert os.stat(folder).st_mode & 0o777 == 0o700
    assert {os.stat(f).st_mode & 0o777 for f in files(folder)} == {0o600}
    size = os.stat(files(folder)[0]).st_size
    oldest = new(folder)._keys(IDS)[0]
    answer(new(folder), IDS[:100])  # uses the first block
    answer(new(folder, limit=3 * size), [7] * 130)
    left = [os.path.basename(f) for f in files(folder)]
    assert len(left) == 3 and oldest in left


def test_a_prompt_over_the_limit_keeps_its_beginning(tmp_path):
    answer(new(tmp_path / "whole"), IDS)
    size = os.stat(files(tmp_path / "whole")[0]).st_size
    for _ in range(2):
        answer(new(tmp_path / "p", limit=7 * size // 2), IDS)
        assert len(files(tmp_path / "p")) == 3
    assert answer(new(tmp_path / "p", limit=7 * size // 2), IDS)[1] == 3 * BLOCK
    answer(new(tmp_path / "p", limit=3 * size), [7] * 70, count=1)  # the chain loses its end
    assert answer(new(tmp_path / "p"), IDS)[1] == 2 * BLOCK


def test_an_unwritable_cache_is_none(tmp_path):
    (tmp_path / "file").write_text("")
    cold, _ = answer(new(tmp_path / "file" / "below"), IDS)
    assert cold == answer(new(tmp_path / "other"), IDS)[0]


def test_short_prompts_touch_nothing(tmp_path):
    answer(new(tmp_path / "p"), IDS[:20], count=4)
    assert not files(tmp_path / "p")


def test_processes_at_the_same_time(tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_prefix_cache as t; from toast import kernels;"
        "kernels.install(); print(t.answer(t.new(sys.argv[2]), t.IDS)[0])"
    )
    words = [sys.executable, "-c", code, os.path.dirname(__file__), str(tmp_path)]
    running = [subprocess.Popen(words, stdout=subprocess.PIPE) for _ in range(4)]
    outs = {r.communicate()[0] for r in running}
    assert len(outs) == 1 and answer(new(tmp_path), IDS)[1] == 256


# ---------------------------------------------------------------- other kinds of caches


def tiny(tmp_path, config):
    """A random model of another family, saved as a folder."""
    from mlx.utils import tree_flatten

    module = decoder.architecture("tiny", config)
    mx.random.seed(1)
    made = module.Model(module.ModelArgs.from_dict(config))
    weights = {k: v + 0.1 * mx.random.normal(v.shape) for k, v in tree_flatten(made.parameters())}
    os.makedirs(tmp_path, exist_ok=True)
    mx.save_safetensors(str(tmp_path / "model.safetensors"), weights)
    (tmp_path / "config.json").write_text(json.dumps(config))
    return str(tmp_path)


GEMMA3 = {"model_type": "gemma3_text", "hidden_size": 64, "num_hidden_layers": 6, "intermediate_size": 96,
          "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 660,
          "sliding_window": 32, "sliding_window_pattern": 3, "query_pre_attn_scalar": 16}  # fmt: skip
MAMBA2 = {"model_type": "mamba2", "num_heads": 4, "head_dim": 16, "vocab_size": 660, "hidden_size": 32,
          "intermediate_size": 64, "state_size": 16, "num_hidden_layers": 2, "layer_norm_epsilon": 1e-5,
          "conv_kernel": 4, "n_groups": 1, "use_bias": False, "use_conv_bias": True, "tie_word_embeddings": True,
          "time_step_limit": [0.0, 100.0], "time_step_rank": "auto", "max_position_embeddings": 512}  # fmt: skip


NEXT = {"model_type": "qwen3_next", "hidden_size": 32, "num_hidden_layers": 4, "intermediate_size": 48,
        "num_attention_heads": 4, "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 16,
        "linear_value_head_dim": 24, "linear_conv_kernel_dim": 4, "num_experts": 0, "num_experts_per_tok": 0,
        "decoder_sparse_step": 1, "shared_expert_intermediate_size": 0, "mlp_only_layers": [],
        "moe_intermediate_size": 0, "rms_norm_eps": 1e-6, "vocab_size": 660, "num_key_value_heads": 2,
        "rope_theta": 1e4, "partial_rotary_factor": 0.25, "max_position_embeddings": 512, "head_dim": 16,
        "tie_word_embeddings": True}  # fmt: skip
RWKV7 = {"model_type": "rwkv7", "vocab_size": 660, "hidden_size": 32, "intermediate_size": 48, "norm_eps": 1e-5,
         "head_dim": 16, "num_hidden_layers": 2, "a_low_rank_dim": 8, "v_low_rank_dim": 8, "gate_low_rank_dim": 8,
         "decay_low_rank_dim": 8, "max_position_embeddings": 512}  # fmt: skip
OTHERS = pytest.mark.parametrize(
    "config", [GEMMA3, MAMBA2, NEXT, RWKV7], ids=["rotating", "state-space", "delta", "rwkv"]
)


@OTHERS
def test_snapshots(tmp_path, config):
    """What goes on from a snapshot has the bits of what was read in one go."""
    path = tiny(tmp_path / "model", config)
    cold, _ = answer(new(tmp_path / "p", path), IDS, path)
    warm, known = answer(new(tmp_path / "p", path), IDS, path)
    assert known == 256 and len(files(tmp_path / "p")) == 2 and same(warm, cold)
    got, known = answer(new(tmp_path / "p", path), IDS[:270] + [4, 4], path)
    want, _ = answer(new(tmp_path / "empty", path), IDS[:270] + [4, 4], path)
    assert known == 256 and same(got, want)


@OTHERS
def test_what_two_prompts_share_is_found_by_a_third(tmp_path, config):
    """A snapshot where the second leaves the first."""
    path = tiny(tmp_path / "model", config)
    prompts = [IDS[:150] + [5 + n] * 90 for n in range(4)]
    known = [answer(new(tmp_path / "p", path), ids, path)[1] for ids in prompts[:3]]
    assert known == [0, 0, 128]
    got, known = answer(new(tmp_path / "p", path), prompts[3], path)
    want, _ = answer(new(tmp_path / "empty", path), prompts[3], path)
    assert known == 128 and same(got, want)


# ---------------------------------------------------------------- in memory, where the process stays


@pytest.fixture
def memory(monkeypatch):
    """That of a process that stays."""
    found = kept.Memory(1 << 30)
    monkeypatch.setattr(kept, "memory", found)
    return found


@pytest.mark.parametrize("ids", [IDS[:9], IDS[:64], IDS[:65], IDS[:66], IDS, [1, 5]], ids=len)
def test_a_prompt_asked_again_is_known_to_its_last_token(tmp_path, memory, ids):
    cold, _ = answer(new(tmp_path / "a"), ids)
    again, known = answer(new(tmp_path / "a"), ids)
    assert known == len(ids) - 1 and same(again, cold)
    other = [*ids[:-1], 7, 8, 9]
    got, known = answer(new(tmp_path / "a"), other)
    memory.clear()
    want, _ = answer(new(tmp_path / "b"), other)
    assert known == len(ids) - 1 and same(got, want)


def test_ends_of_prompts_that_begin_alike_are_all_known(tmp_path, memory):
    prompts = [IDS[:70] + [5, n, 6, 7] for n in range(prefix_cache.ENDS + 2)]
    for ids in prompts:
        answer(new(tmp_path), ids)
    known = [answer(new(tmp_path), ids)[1] for ids in reversed(prompts)]
    assert known[: prefix_cache.ENDS] == [73] * prefix_cache.ENDS and known[-1] >= 71


def test_what_is_in_memory_is_read_from_no_file(tmp_path, memory, monkeypatch):
    want, _ = answer(new(tmp_path), IDS)
    monkeypatch.setattr(prefix_cache.files, "open_regular", None)
    got, known = answer(new(tmp_path), IDS)
    assert same(got, want) and known == len(IDS) - 1


def test_snapshots_stay_in_memory(tmp_path, memory, monkeypatch):
    path = tiny(tmp_path / "model", GEMMA3)
    want, _ = answer(new(tmp_path / "p", path), IDS, path)
    monkeypatch.setattr(prefix_cache.files, "open_regular", None)
    got, known = answer(new(tmp_path / "p", path), IDS, path)
    assert known == 256 and [t[0] for t in got] == [t[0] for t in want]


# ---------------------------------------------------------------- the format


@given(st.binary(max_size=300))
def test_any_bytes_are_refused(data):
    assert unpack(memoryview(data), "k") is None


def test_round_trip():
    tree = [[mx.arange(6).reshape(2, 3), None, 7], [mx.array([1.5], mx.bfloat16), "text", mx.zeros((0, 4))]]
    data = b"".join(pack(tree, "k"))
    found = unpack(memoryview(data), "k")
    assert found[0][0].tolist() == [[0, 1, 2], [3, 4, 5]] and found[0][1:] == [None, 7]
    assert found[1][0].dtype == mx.bfloat16 and found[1][2].shape == (0, 4)
    assert unpack(memoryview(data), "other") is None and len(data) % prefix_cache.BLOCK == 0
