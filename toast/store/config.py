"""config.json as every architecture may expect it: writers differ, and what they mean is put where readers look.

Owns: where settings stand. Knows nothing of files, of tensors or of what an architecture does with a setting.
"""

from __future__ import annotations

from math import inf, nan

from toast.errors import BadModel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Config = dict[str, Any]

# Null says "without" here, where absent would mean the architecture's default.
MEANT_NULLS = {"q_lora_rank", "kv_lora_rank", "n_routed_experts", "n_shared_experts", "final_logit_softcapping"}
FLOATS = {"Infinity": inf, "-Infinity": -inf, "NaN": nan}
TEXT = "text_config", "llm_config", "language_config"  # what wrappers call their language model
FOREIGN = {"quant_method", "quant_algo", "quantization", "format"}
METHODS = {
    "mxfp4": {"group_size": 32, "bits": 4, "mode": "mxfp4"},
    "mxfp8": {"group_size": 32, "bits": 8, "mode": "mxfp8"},
}
# other names of what rope_parameters holds -> where in it
OTHER_NAMES = {
    "rotary_pct": "partial_rotary_factor", "rope_pct": "partial_rotary_factor", "rotary_emb_base": "rope_theta",
}  # fmt: skip
# what one writer calls so, and another so
SAME = (("num_experts", "num_local_experts"), ("n_positions", "n_ctx"), ("hidden_size", "block_dim"))
# settings that newer writers leave out, as they never differ
ALWAYS: dict[str, Config] = {
    "apertus": {"mlp_bias": False, "post_norm": False, "qk_norm": True},
    "ernie4_5_moe": {"moe_use_aux_free": True},
    "granitemoehybrid": {"position_embedding_type": "nope"},
    "longcat_flash": {"attention_method": "MLA", "zero_expert_type": "identity", "mla_scale_q_lora": True,
                      "mla_scale_kv_lora": True},
    "mimo_v2_flash": {"add_swa_attention_sink_bias": True, "add_full_attention_sink_bias": False,
                      "topk_method": "noaux_tc", "scoring_func": "sigmoid", "n_shared_experts": None},
    "minimax_m2": {"shared_intermediate_size": 0},
    "solar_open": {"partial_rotary_factor": 1.0},
}  # fmt: skip
MAMBA = {"linear_attention": "mamba", "full_attention": "attention"}
LOCAL_NAMES = "rope_local_base_freq", "local_rope_theta", "swa_rope_theta", "rope_local_theta"


def normalised(config: Config, beside: Config | None = None) -> Config:
    """The configuration with nulls gone, the language model in text_config, rope settings in rope_theta, rope_scaling
    (also where layers differ), and quantisation in `quantization` (MLX's) or `quantization_config` (others').

    beside: hf_quant_config.json. Raises BadModel where a part is of another kind than every reader takes it for."""
    if "num_attention_heads" in config and config.get("num_key_value_heads", 0) is None:
        config = {**config, "num_key_value_heads": config["num_attention_heads"]}
    config = {name: _decoded(value) for name, value in config.items() if value is not None or name in MEANT_NULLS}
    _rename_text(config)
    _add_names(config)
    _lift_rope(config)
    _place_quantization(config, beside or {})
    if "dtype" in config:
        config.setdefault("torch_dtype", config["dtype"])
    return config


def text_part(config: Config) -> Config:
    """The language model's own settings: a wrapper's text_config, or all."""
    return config.get("text_config") or config


def _decoded(value: Any) -> Any:
    """A value in which transformers wrote numbers that JSON lacks as {"__float__": "Infinity"}."""
    if isinstance(value, list):
        return [_decoded(x) for x in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"__float__"} and value["__float__"] in FLOATS:
        return FLOATS[value["__float__"]]
    return {name: _decoded(x) for name, x in value.items()}


def _object(config: Config, name: str) -> Config:
    found = config.get(name, {})
    if not isinstance(found, dict):
        raise BadModel(f"{name} in config.json is {found!r}, not an object")
    return found


def _rename_text(config: Config) -> None:
    for name in TEXT:
        if part := _object(config, name):
            config["text_config"] = text = normalised(part)
            for shared in ("tie_word_embeddings", "vocab_size"):
                for place, other in ((text, config), (config, text)):
                    if shared in other:
                        place.setdefault(shared, other[shared])
            return
    config.pop("text_config", None)


def _add_names(config: Config) -> None:
    for names in SAME:
        for name, other in (names, names[::-1]):
            if other in config:
                config.setdefault(name, config[other])
    for name, value in ALWAYS.get(str(config.get("model_type")), {}).items():
        config.setdefault(name, value)
    if "n_embd" in config:
        config.setdefault("n_inner", 4 * config["n_embd"])
    if config.get("model_type") == "mimo_v2_flash":
        _name_mimo(config)
    if config.get("model_type") == "mamba2" and "hidden_size" in config:
        config.setdefault("intermediate_size", config.get("expand", 2) * config["hidden_size"])
    if "mlp_layer_types" in config:
        config.setdefault("is_moe_layer", [kind == "sparse" for kind in config["mlp_layer_types"]])
    if config.get("model_type") == "granitemoehybrid" and isinstance(config.get("layer_types"), list):
        config["layer_types"] = [MAMBA.get(kind, kind) for kind in config["layer_types"]]
    _tell_layers(config)
    _tell_pattern(config)


def _tell_layers(config: Config) -> None:
    """Gemma 4's layers of full attention, each told by its number, as what they have in common."""
    types, apart = config.get("layer_types"), _object(config, "per_layer_config")
    if not isinstance(types, list) or not apart:
        return
    full = _object(apart, str(types.index("full_attention"))) if "full_attention" in types else {}
    for name, ours in (("head_dim", "global_head_dim"), ("num_key_value_heads", "num_global_key_value_heads")):
        if name in full:
            config.setdefault(ours, full[name])


def _name_mimo(config: Config) -> None:
    """MiMo's own names of what transformers saves under common ones."""
    for ours, theirs in (("sliding_window_size", "sliding_window"), ("layernorm_epsilon", "rms_norm_eps")):
        if theirs in config:
            config.setdefault(ours, config[theirs])
    if isinstance(config.get("layer_types"), list):
        config["hybrid_layer_pattern"] = [int(kind == "sliding_attention") for kind in config["layer_types"]]
    if isinstance(config.get("mlp_layer_types"), list):
        config["moe_layer_freq"] = [int(kind == "sparse") for kind in config["mlp_layer_types"]]


def _tell_pattern(config: Config) -> None:
    """layer_types of full attention at every Nth layer, as architectures before it were told: by N."""
    types = config.get("layer_types")
    if not isinstance(types, list) or "full_attention" not in types or len(set(types)) == 1:
        return
    every = types.index("full_attention") + 1
    if [i % every == every - 1 for i in range(len(types))] != [kind == "full_attention" for kind in types]:
        return
    config["sliding_window_pattern"] = config["full_attention_interval"] = every
    if config.get("model_type") == "exaone4":
        config["sliding_window_pattern"] = "L" * (every - 1) + "G"


# ---------------------------------------------------------------- rotary positions


def _lift_rope(config: Config) -> None:
    """transformers 5 writes all in rope_parameters, per kind of layer where they differ; before, it was rope_theta,
    rope_scaling and what each architecture called the rest."""
    given = _object(config, "rope_parameters")
    kinds = {name: part for name, part in given.items() if name.endswith("_attention") and isinstance(part, dict)}
    rope = {**{name: x for name, x in given.items() if name not in kinds}, **kinds.get("full_attention", {})}
    rope = {name: value for name, value in rope.items() if value is not None}
    for name in ("rope_theta", "partial_rotary_factor", "original_max_position_embeddings"):
        if name in rope:
            config.setdefault(name, rope[name])
    for name, source in OTHER_NAMES.items():
        if source in rope:
            config.setdefault(name, rope[source])
    if "rope_theta" in (local := kinds.get("sliding_attention", {})):
        for name in LOCAL_NAMES:
            config.setdefault(name, local["rope_theta"])
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default" or "mrope_section" in rope:
        config.setdefault("rope_scaling", rope)
    _name_kind(config)


def _name_kind(config: Config) -> None:
    """rope_scaling of either spelling gets both: `type` and, newer, `rope_type`. "default" scales nothing."""
    scaling = _object(config, "rope_scaling")
    kind = scaling.get("rope_type") or scaling.get("type")
    if kind:
        config["rope_scaling"] = {**scaling, "type": kind, "rope_type": kind}
    if not scaling or (kind == "default" and "mrope_section" not in scaling):
        config.pop("rope_scaling", None)


# ---------------------------------------------------------------- quantisation


def _place_quantization(config: Config, beside: Config) -> None:
    """MLX's own settings to `quantization`, those of other tools (quant_method) to `quantization_config`."""
    text = _object(config, "text_config")
    places = [(config, "quantization"), (config, "quantization_config"), (config, "compression_config"),
              (text, "quantization"), (text, "quantization_config"), ({"beside": beside}, "beside")]  # fmt: skip
    found = [_object(*place) for place in places]
    for place, name in places:
        place.pop(name, None)
    ours = next((x for x in found if x.keys() & {"bits", "group_size"} and not x.keys() & FOREIGN), None)
    theirs = next((x for x in found if x and x is not ours), None)
    if ours is not None:
        config["quantization"] = ours
    elif theirs is not None and theirs.get("quant_method") in METHODS:
        config["quantization"] = METHODS[theirs["quant_method"]]
    elif theirs is not None:
        config["quantization_config"] = theirs
