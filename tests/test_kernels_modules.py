"""The fused ops in MLX-LM's modules give the bits of its own code."""

import inspect
import zlib
from importlib import import_module

import mlx.core as mx
import numpy as np
import pytest
from test_kernels_fast import bits

from toast import kernels
from toast.generation.decoder import architecture
from toast.kernels import known

ext = pytest.importorskip("toast.kernels._ext")

ARGS = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": 50,
    "rope_theta": 10000.0,
}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 64}


@pytest.fixture(autouse=True)
def llama():
    if kernels.install() == "off":
        pytest.skip("no kernels on this device")
    return architecture("llama", ARGS)


def tiny(llama, dtype=mx.float32, **more):
    model = llama.Model(llama.ModelArgs(**{**ARGS, **more}))
    model.set_dtype(dtype)
    mx.eval(model.parameters())
    return model


def quantized(llama, **more):
    import mlx.nn as nn

    model = tiny(llama, intermediate_size=128, **more)
    nn.quantize(model, 32, 4)
    return model


def logits(model, pieces, cache):
    """The logits of each piece of token ids, one call after the other on one cache."""
    return [bits(model(mx.array([piece]), cache)) for piece in pieces]


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
@pytest.mark.parametrize("more", [{}, {"rope_scaling": LLAMA3}, {"rope_traditional": True}, {"num_key_value_heads": 4}])
def test_an_attention_step_is_its_parts(llama, monkeypatch, dtype, more):
    """A prompt, a second one, and steps past the cache's first 256 positions."""
    unfused = known.originals["Attention"]
    assert llama.Attention.__call__ is not unfused
    model = tiny(llama, dtype, **more)
    tokens = np.random.default_rng(0).integers(0, 50, 300).tolist()
    pieces = [tokens[:100], tokens[100:240], *[[t] for t in tokens[240:262]]]
    fused = logits(model, pieces, model.make_cache())
    monkeypatch.setattr(llama.Attention, "__call__", unfused)
    for a, b in zip(fused, logits(model, pieces, model.make_cache()), strict=True):
        np.testing.assert_array_equal(a, b)


def unfuse(llama, monkeypatch, *names):
    for name in names:
        monkeypatch.setattr(getattr(llama, name), "__call__", known.originals[name])


def narrow(model):
    """New caches of the dtype that fused layers store, for the unfused path."""
    caches = model.make_cache()
    for cache, layer in zip(caches, model.layers, strict=True):
        empty = mx.zeros((1, layer.fused.kv_heads, 0, layer.fused.head_dims), layer.fused.kv_dtype)
        cache.keys, cache.values = empty, empty
    return caches


FORMS = [{"bits": 4, "group_size": 32}, {"bits": 8, "group_size": 64}]


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
@pytest.mark.parametrize("more", [{}, {"rope_scaling": LLAMA3}, {"rope_traditional": True}, {"head_dim": 32}])
def test_layers_are_their_parts(llama, monkeypatch, dtype, more):
    """Quantised: pieces of a prompt, one of them with infinities in it, and steps past the cache's growth; all layers
    as one op, one after the other, and as MLX-LM has them."""
    import mlx.nn as nn

    model = tiny(llama, dtype, intermediate_size=128, **more)
    nn.quantize(
        model,
        **FORMS[0],
        class_predicate=lambda path, m: (
            FORMS["v_proj" in path or "down" in path] if hasattr(m, "to_quantized") else False
        ),
    )
    model.model.embed_tokens.scales[7] = float("inf")
    tokens = np.random.default_rng(0).integers(8, 50, 300).tolist()
    pieces = [tokens[:100], tokens[100:113], [*tokens[113:239], 7], *[[t] for t in tokens[240:262]]]
    together = logits(model, pieces, model.make_cache())
    assert type(model.model.fused) is type(model.layers[1].fused) is ext.DecoderLayers
    unfuse(llama, monkeypatch, "LlamaModel")
    one_by_one = logits(model, pieces, model.make_cache())
    unfuse(llama, monkeypatch, "TransformerBlock")
    for a, b, c in zip(together, one_by_one, logits(model, pieces, narrow(model)), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)


def test_a_narrower_embedding_is_fused(llama, monkeypatch):
    """Scales of half precision before norms of float32: the first layer's norm widens what it gets."""
    from toast.kernels import modules

    model = quantized(llama)
    embedding = model.model.embed_tokens
    embedding.scales, embedding.biases = embedding.scales.astype(mx.float16), embedding.biases.astype(mx.float16)
    pieces = [list(range(8, 40)), [5], [6]]
    cache = model.make_cache()
    short = logits(model, pieces, cache)
    assert cache[0].keys.dtype == mx.float16 and modules.supports_ragged_batch(model)
    unfuse(llama, monkeypatch, "LlamaModel", "TransformerBlock")
    for a, b in zip(short, logits(model, pieces, narrow(model)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_texts_that_do_not_fit_a_cache_are_refused(llama):
    model, x = quantized(llama), mx.ones((1, 3, 64))
    logits(model, [[1]], model.make_cache())
    layer = model.layers[0].fused

    def caches(rows=1, size=8, dtype=mx.float32, shared=False, count=2):
        made = [mx.zeros((rows, 2, size, 16), dtype) + 0 for _ in range(2 * count)]
        mx.eval(made)
        made = [mx.array(made[0])] * len(made) if shared else made
        return made[:count], made[count:]

    assert layer(x, *caches(count=1), 5)[0].shape == x.shape
    for offset in (-1, 6, 2**31 - 2):
        with pytest.raises(ValueError):
            layer(x, *caches(count=1), offset)
    for wrong in (caches(2, count=1), caches(count=0), caches(count=2)):
        with pytest.raises(ValueError):
            layer(x, *wrong, 0)
    texts = [(2, 6), (1, 7)]
    states, y = layer.write(x, *caches(), texts)
    assert y.shape == x.shape
    for wrong in (
        [],
        [(2, 0)],
        [(2, 7), (1, 7)],
        [(3, -1), (0, 0)],
        [(3, 0), (0, 0)],
        [(2, 2**31 - 2), (1, 0)],
        [(2**31 - 1, 0)] * 2,
    ):
        with pytest.raises(ValueError):
            layer.write(x, *caches(), wrong)
    for wrong in (caches(2), caches(count=1), caches(size=7), caches(dtype=mx.bfloat16)):
        with pytest.raises(ValueError):
            layer.write(x, *wrong, texts)


def test_a_cache_that_others_hold_is_not_written_in_place(llama):
    model, x = quantized(llama), mx.ones((1, 1, 64))
    logits(model, [[1]], model.make_cache())
    keys, values = mx.zeros((1, 2, 8, 16)) + 0, mx.zeros((1, 2, 8, 16)) + 0
    mx.eval(keys, values)
    held = keys.reshape(2, 8, 16)  # the same memory
    mx.eval(held)
    with pytest.raises(ValueError, match="in place"):
        model.layers[0].fused.write(x, [keys], [values], [(1, 0)])
    with pytest.raises(ValueError, match="in place"):  # nothing is there yet
        model.layers[0].fused.write(x, [mx.zeros((1, 2, 8, 16)) + 1], [values], [(1, 0)])


@pytest.mark.parametrize("change", [
    lambda model, nn: nn.quantize(model, 32, 4, mode="mxfp4"), lambda model, nn: None,
])  # fmt: skip
def test_other_weights_take_the_unfuse(llama, change):
    import mlx.nn as nn

    model = tiny(llama, intermediate_size=128)
    change(model, nn)
    logits(model, [[1, 2, 3], [4]], model.make_cache())
    assert model.layers[0].fused is None


@pytest.mark.parametrize("make", [tiny, quantized])
def test_a_kept_cache_does_not_change(llama, make):
    """What somebody else still holds is copied before it is written to."""
    model = make(llama)
    cache = model.make_cache()
    logits(model, [[1, 2, 3], [4]], cache)
    kept = [(c.keys, c.values, c.offset) for c in cache]
    before = [bits(keys) for keys, _, _ in kept]
    first = logits(model, [[5], [6]], cache)
    for (keys, _, _), old in zip(kept, before, strict=True):
        np.testing.assert_array_equal(bits(keys), old)
    for c, (keys, values, offset) in zip(cache, kept, strict=True):
        c.keys, c.values, c.offset = keys, values, offset
    for a, b in zip(first, logits(model, [[5], [6]], cache), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("make", [tiny, quantized])
def test_the_cache_is_updated_in_place(llama, make):
    model = make(llama)
    cache = model.make_cache()
    logits(model, [[1, 2, 3]], cache)
    mx.eval([c.state[:2] for c in cache])
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    logits(model, [[4]], cache)
    assert mx.get_peak_memory() - before < cache[0].keys.nbytes


def test_steps_under_way_update_the_cache_in_place(llama):
    """Each step begins before the one before it has ended, which still holds the cache."""

    def places():
        return [np.asarray(memoryview(part)).ctypes.data for c in cache for part in (c.keys, c.values)]

    model = quantized(llama)
    cache, token, wide = model.make_cache(), mx.array([[4]]), mx.ones((512, 512))
    logits(model, [[1, 2, 3]], cache)
    before = places()
    for _ in range(4):
        mx.async_eval(wide @ wide @ wide @ wide)  # steps wait for this
        token = mx.argmax(model(token, cache)[:, -1:], -1)
        mx.async_eval(token)
    assert places() == before


def test_caches_alone_are_those_of_a_whole_pass(llama):
    """A prompt that is only read does not need what the last layer does after its keys and values."""
    model = quantized(llama)
    cache = model.make_cache()
    model(mx.array([[1, 2, 3]]), cache)
    mx.eval([c.state for c in cache])
    other = model.make_cache()
    mx.eval(model(mx.array([[1, 2, 3]]), other))
    for a, b in zip(cache, other, strict=True):
        np.testing.assert_array_equal(bits(a.keys), bits(b.keys))
        np.testing.assert_array_equal(bits(a.values), bits(b.values))


def batch_is_single(model, prompts=([3, 4, 5, 6], [7], [8, 9])):
    """Texts side by side, prompts and two steps each, give the bits that each gives alone."""
    from toast.generation.decoder import caches
    from toast.generation.generate import prefill
    from toast.generation.ragged_cache import batch

    rows, singles = batch(model, lambda: caches(model)), []
    rows.place(dict(enumerate(prompts)))
    steps = [bits(rows.step(dict.fromkeys(range(len(prompts)), token))) for token in (10, 11)]
    for ids in prompts:
        single = caches(model)
        prefill(model, single, ids[:-1])
        singles.append(single)
    for step, token in enumerate((10, 11)):
        for n, single in enumerate(singles):
            np.testing.assert_array_equal(bits(model(mx.array([[token]]), single))[0, -1], steps[step][n])


@pytest.mark.parametrize("prompts", [([3, 4, 5, 6], [7], [8, 9]), ([5], [6])])
def test_texts_side_by_side_where_one_layer_is_not_fused(llama, prompts):
    import mlx.nn as nn

    model = tiny(llama, intermediate_size=128)
    nn.quantize(model, 32, 4, class_predicate=lambda path, m: hasattr(m, "to_quantized") and "layers.1" not in path)
    logits(model, [[1]], model.make_cache())
    assert model.layers[0].fused and not model.layers[1].fused
    batch_is_single(model, prompts)


def test_texts_side_by_side_in_a_model_with_a_loop_of_its_own():
    """Llama's layers one by one, each a call of its own."""
    import mlx.nn as nn

    helium = architecture("helium", {"model_type": "helium"})
    args = {**ARGS, "intermediate_size": 128, "head_dim": 16, "max_position_embeddings": 64, "attention_bias": False,
            "mlp_bias": False, "tie_word_embeddings": False, "model_type": "helium"}  # fmt: skip
    model = helium.Model(helium.ModelArgs.from_dict(args))
    nn.quantize(model, 32, 4)
    mx.eval(model.parameters())
    assert kernels.supports_ragged_batch(model)
    batch_is_single(model)


def test_caches_dropped_before_their_step_has_run(llama):
    """The step writes to copies that nobody but it holds then, while others ask for memory of that size."""
    model = quantized(llama)
    begun, wide, expected = model.make_cache(), mx.ones((1000, 1000)), None
    logits(model, [[1, 2, 3, 4]], begun)
    for _ in range(20):
        cache = model.make_cache()
        for new, old in zip(cache, begun, strict=True):
            new.keys, new.values, new.offset = old.keys, old.values, old.offset
        mx.async_eval(wide @ wide)  # the step waits for this
        y = model(mx.array([[5]]), cache)
        mx.async_eval(y)
        del cache, new
        others = [mx.array(np.full(begun[0].keys.shape, np.nan, np.float16)) for _ in range(8)]
        expected = bits(y) if expected is None else expected
        np.testing.assert_array_equal(bits(y), expected)
        del others


def test_a_cache_that_is_behind_goes_the_unfuse(llama, monkeypatch):
    model = quantized(llama)

    def logits_of_uneven_caches():
        cache = model.make_cache()
        logits(model, [[1, 2, 3, 4]], cache)
        cache[1].trim(2)
        return logits(model, [[5], [6, 7]], cache)

    short = logits_of_uneven_caches()
    unfuse(llama, monkeypatch, "LlamaModel")
    for a, b in zip(short, logits_of_uneven_caches(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_layers_of_several_shapes_go_one_by_one(llama):
    import mlx.nn as nn

    model = tiny(llama, intermediate_size=128)
    model.layers[1] = llama.TransformerBlock(
        llama.ModelArgs(**{**ARGS, "intermediate_size": 128, "num_key_value_heads": 1})
    )
    nn.quantize(model, 32, 4)
    logits(model, [[1, 2, 3], [4]], model.make_cache())
    assert model.model.fused is None and all(layer.fused for layer in model.layers)
    batch_is_single(model)


def test_the_same_code_elsewhere_is_found(llama):
    assert architecture("gemma", {"model_type": "gemma"}).Attention.__call__.__module__ == "toast.kernels.modules"
    assert architecture("qwen3", {"model_type": "qwen3"}).Attention.__call__.__module__ != "toast.kernels.modules"


def test_swiglu_is_one_op(llama):
    from mlx_lm.models.activations import swiglu

    assert llama.swiglu is swiglu is ext.swiglu


# zlib.crc32 of the source of each __call__ in MLX-LM 0.32.2's files, the same in every Python
SOURCES = {
    "Attention": 0xDD0485A7,
    "MLP": 0xED254CBC,
    "TransformerBlock": 0xA8FDA935,
    "LlamaModel": 0xD813A682,
    "Qwen2Model": 0x433C30D9,
    "Qwen3Attention": 0xD6DA457D,
    "Qwen3Model": 0xC6748787,
    "Qwen3Experts": 0x20BFED0,
    "Qwen3NextExperts": 0xCF423535,
    "Qwen2Experts": 0xFB184635,
    "OlmoeAttention": 0xF0A6553,
    "OlmoeExperts": 0xB8D47F5A,
    "OlmoeBlock": 0x59B1DBDF,
    "OlmoeModel": 0xC1FC0197,
    "MixtralAttention": 0x38358CD,
    "MixtralExperts": 0x4461FCFC,
    "MixtralBlock": 0x11BE51E5,
    "SwitchGLU": 0x1F8ED0C0,
    "SwitchLinear": 0x8B883BDC,
    "Phi3Attention": 0x3EBB90B8,
    "Phi3MLP": 0xE60533CC,
    "Phi3Model": 0xB142ACD2,
    "Gemma3Attention": 0x8900EF1E,
    "Gemma3MLP": 0xE84BDFE7,
    "Gemma3Block": 0xC216701E,
    "Gemma3Model": 0x597AD717,
}

CHANGED = """MLX-LM's {file}.{name} is not the code that toast/kernels/modules.py replaces.
Compare mlx_lm/models/{file}.py with the release before. Where it computes the same: write its names to NAMES and
the sum {sum:#x} to SOURCES here. Where it computes something else: change the fused op first, or layers are fused
wrongly."""


@pytest.mark.parametrize("name", known.NAMES)
def test_the_code_of_the_pinned_mlx_lm_is_known(llama, name):
    """Otherwise layers run unfused, three times as slow, without a word; or fused ones compute something else."""
    file, cls, _ = known.NAMES[name]
    import_module(f"mlx_lm.models.{file}")
    kernels.install_nn()
    unfused = known.originals[name]
    found = zlib.crc32(inspect.getsource(unfused).encode())
    assert known.kind(unfused) == name and found == SOURCES.get(name), CHANGED.format(file=file, name=cls, sum=found)


def test_fused_layers_are_counted(llama):
    import mlx.nn as nn

    model = tiny(llama, intermediate_size=128)
    nn.quantize(model, 32, 4, class_predicate=lambda path, m: hasattr(m, "to_quantized") and "layers.1" not in path)
    assert kernels.fused_layers(model) == (1, 2)
    assert kernels.fused_layers(quantized(llama)) == (2, 2)
    kernels.install("off")
    assert kernels.fused_layers(model) == (0, 2)
