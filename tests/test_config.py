"""config.json as all its readers may expect it."""

import json
import os
import shutil
from math import inf

import mlx.core as mx
import pytest

from toast.errors import BadModel
from toast.generation import decoder, windows
from toast.store import weights
from toast.store.config import normalised
from toast.store.folder import read_config

LLAMA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oracles", "llama-causal")
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 7e3}


def test_nulls_are_absent_but_where_they_mean_something():
    config = {"rope_scaling": None, "quantization": None, "q_lora_rank": None, "text_config": None, "rope_theta": None}
    assert normalised(config) == {"q_lora_rank": None}
    assert normalised({"num_attention_heads": 4, "num_key_value_heads": None})["num_key_value_heads"] == 4


def test_rope_parameters_go_where_they_were_before():
    found = normalised({"rope_parameters": YARN | {"partial_rotary_factor": 0.5}})
    assert (found["rope_theta"], found["partial_rotary_factor"], found["rotary_pct"]) == (7e3, 0.5, 0.5)
    assert found["rope_scaling"]["type"] == found["rope_scaling"]["rope_type"] == "yarn"
    assert "rope_scaling" not in normalised({"rope_parameters": {"rope_type": "default", "rope_theta": 1.0}})
    assert normalised({"rope_scaling": {"type": "linear", "factor": 2}})["rope_scaling"]["rope_type"] == "linear"


def test_rope_parameters_of_each_kind_of_layer():
    kinds = {"full_attention": YARN, "sliding_attention": {"rope_type": "default", "rope_theta": 9.0}}
    found = normalised({"text_config": {"rope_parameters": kinds}})["text_config"]
    assert (found["rope_theta"], found["rope_local_base_freq"], found["rope_scaling"]["type"]) == (7e3, 9.0, "yarn")


@pytest.mark.parametrize(
    "config, beside, name",
    [
        ({"quantization": {"bits": 4, "group_size": 64}}, {}, "quantization"),
        ({"quantization": None, "quantization_config": {"bits": 4, "group_size": 64}}, {}, "quantization"),
        ({"text_config": {"quantization": {"bits": 4, "group_size": 64}}}, {}, "quantization"),
        ({"quantization_config": {"quant_method": "mxfp4"}}, {}, "quantization"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 64}}, {}, "quantization_config"),
        ({"text_config": {"quantization_config": {"quant_method": "fp8"}}}, {}, "quantization_config"),
        ({}, {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4"}}, "quantization_config"),
    ],
)
def test_quantisation_is_found_where_writers_put_it(config, beside, name):
    found = normalised(config, beside)
    assert [key for key in found if key.startswith("quantization")] == [name]


def test_numbers_that_json_lacks():
    assert normalised({"a": [{"__float__": "-Infinity"}]}) == {"a": [-inf]}


def test_windows_of_layers():
    base = {"num_hidden_layers": 4, "sliding_window": 8, "max_window_layers": 3}
    assert windows.windows(base | {"model_type": "mistral"}) == [8] * 4
    assert windows.windows(base | {"model_type": "gemma2"}) == [8, None, 8, None]
    assert windows.windows(base | {"model_type": "qwen2"}) == []
    assert windows.windows(base | {"model_type": "qwen2", "use_sliding_window": True}) == [None, None, None, 8]
    assert windows.windows(base | {"model_type": "llama"}) == []
    assert windows.windows({"model_type": "mistral", "num_hidden_layers": 4}) == []


def test_hyphenated_types(tmp_path):
    """lille-130m.py: MLX-LM's own file, its own weights."""
    from mlx.utils import tree_flatten

    config = {"model_type": "lille-130m", "block_size": 64, "layer_norm_eps": 1e-5, "n_embd": 256, "n_head": 4}
    config |= {"n_kv_heads": 2, "n_layer": 2, "rope_theta": 1e4, "vocab_size": 64, "tie_word_embeddings": True}
    module = decoder.architecture("", config)
    model = module.Model(module.ModelArgs.from_dict(config))
    mx.save_safetensors(str(tmp_path / "model.safetensors"), dict(tree_flatten(model.parameters())))
    (tmp_path / "config.json").write_text(json.dumps(config))
    ids = mx.array([[3, 4, 5]])
    assert mx.array_equal(decoder.load(str(tmp_path))[0](ids), model(ids)).item()


@pytest.mark.parametrize(
    "prefix, head", [("model.language_model.", "lm_head."), ("language_model.model.", "language_model.lm_head.")]
)
def test_language_model_of_a_wrapper(tmp_path, prefix, head):
    names = {"model.": prefix, "lm_head.": head}
    tensors = mx.load(os.path.join(LLAMA, "model.safetensors"))
    renamed = {
        new + name.removeprefix(old): x
        for name, x in tensors.items()
        for old, new in names.items()
        if name.startswith(old)
    }
    assert len(renamed) == len(tensors)
    mx.save_safetensors(str(tmp_path / "model.safetensors"), renamed | {"model.vision_tower.w": mx.zeros(3)})
    config = {"model_type": "a_wrapper", "text_config": read_config(LLAMA)}
    (tmp_path / "config.json").write_text(json.dumps(config))
    ids = mx.array([[3, 4, 5]])
    assert mx.array_equal(decoder.load(str(tmp_path))[0](ids), decoder.load(LLAMA)[0](ids)).item()


def test_what_is_missing_is_named_and_counted(tmp_path):
    shutil.copy(os.path.join(LLAMA, "config.json"), tmp_path)
    mx.save_safetensors(str(tmp_path / "model.safetensors"), {"model.norm.weight": mx.zeros(3)})
    with pytest.raises(BadModel, match=r"\.weight, \S+, \S+ and \d+ more tensors are missing$"):
        decoder.load(str(tmp_path))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "consolidated.00.pth"])
def test_pickles_are_not_read(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x80")
    with pytest.raises(BadModel, match=f"{name}.*safetensors"):
        weights.load(str(tmp_path))
