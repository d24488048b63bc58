"""One measurement in a process of its own, of ours and of other programs; the last line is a number in JSON.

work.py ours   prompt|decode MODEL          work.py ours embed FILE
work.py llama  prompt|decode|first FILE.gguf      work.py st|ort|ct2 embed FILE FOLDER
work.py installed NAME...                   megabytes of these distributions and all that they require
Tokens or lines a second, loading not counted. FOLDER: of all-MiniLM-L6-v2, in the program's own form.
Each program runs in its own environment, so this file imports nothing of ours before it is asked to.
"""

import json
import os
import sys
import time

PROMPT, NEW = 512, 64


def ours_tokens(name):
    """A model and how it is asked: evaluate(ids) -> the next token."""
    import mlx.core as mx
    from mlx_lm.models.cache import make_prompt_cache

    from toast import kernels, store
    from toast.generation import decoder, generate, last_row

    call = ours_call()
    model, _ = decoder.load(store.as_folder(call, name))
    mx.eval(model(mx.array([[5, 6, 7]])))  # the pages are there
    cache = make_prompt_cache(model)
    kernels.install_nn()

    def evaluate(ids):
        logits = last_row.logits(model, cache, ids)  # as `toast` does, and llama.cpp: of the last token alone
        if logits is None:
            generate.prefill(model, cache, ids[:-1])
            logits = model(mx.array([ids[-1:]]), cache=cache)[0, -1]
        return mx.argmax(logits).item()

    return evaluate


def llama_tokens(path):
    from llama_cpp import Llama

    threads = len(os.sched_getaffinity(0))
    model = Llama(path, n_ctx=1024, n_batch=512, verbose=False, n_threads=threads, n_threads_batch=threads)
    model.eval([5, 6, 7])
    model.reset()

    def evaluate(ids):
        model.eval(ids)
        return 229

    return evaluate


def tokens_a_second(evaluate, what):
    """Of a prompt, or of decoding after it; what: first, a short prompt and one token, to be timed from outside."""
    if what == "first":
        return evaluate(list(range(100, 131)))
    prompt = [100 + i % 4000 for i in range(PROMPT)]
    start = time.perf_counter()
    token = evaluate(prompt)
    middle = time.perf_counter()
    if what == "prompt":
        return PROMPT / (middle - start)
    for _ in range(NEW):
        token = evaluate([token])
    return NEW / (time.perf_counter() - middle)


def ours_call():
    from toast import kernels
    from toast.command import Call

    call = Call("bench", os.environ, os.open(".", os.O_RDONLY))
    kernels.install_for(call)
    return call


def ours_embed(_):
    import mlx.core as mx

    from toast.encoding.encoder import Encoder

    encoder = Encoder(ours_call(), "minilm")
    return lambda lines: mx.eval(encoder.encode(lines))


def st_embed(folder):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(folder)
    return lambda lines: model.encode(lines, batch_size=32, normalize_embeddings=True, show_progress_bar=False)


def ort_embed(folder):
    import numpy
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    session = onnxruntime.InferenceSession(f"{folder}.onnx", options, providers=["CPUExecutionProvider"])

    def states(ids, mask):
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": numpy.zeros_like(ids)}
        return session.run(None, given)[0]

    return pooled(os.path.join(os.path.dirname(folder), "minilm"), states)


def ct2_embed(folder):
    import ctranslate2
    import numpy

    model = ctranslate2.Encoder(folder, device="cpu", inter_threads=1, intra_threads=len(os.sched_getaffinity(0)))

    def states(ids, mask):
        rows = [row[: int(length)].tolist() for row, length in zip(ids, mask.sum(1))]
        return numpy.array(model.forward_batch(rows).last_hidden_state)

    return pooled(os.path.join(os.path.dirname(folder), "minilm"), states)


def pooled(folder, states):
    """Lines to unit vectors, sorted by length, in batches of 32: what sentence-transformers does around a model."""
    import numpy
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)

    def encode(lines):
        ids = [encoding.ids for encoding in tokenizer.encode_batch(lines)]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        vectors = numpy.empty((len(ids), 384), numpy.float32)
        for start in range(0, len(order), 32):
            batch = order[start : start + 32]
            padded = numpy.zeros((len(batch), max(len(ids[i]) for i in batch)), numpy.int64)
            mask = numpy.zeros_like(padded)
            for row, i in enumerate(batch):
                padded[row, : len(ids[i])], mask[row, : len(ids[i])] = ids[i], 1
            means = (states(padded, mask) * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
            vectors[batch] = means / numpy.linalg.norm(means, axis=1, keepdims=True)
        return vectors

    return encode


def lines_a_second(encode, path):
    with open(path, encoding="utf-8") as file:
        lines = file.read().splitlines()
    encode(lines[:4])
    start = time.perf_counter()
    encode(lines)
    return len(lines) / (time.perf_counter() - start)


def installed(*names):
    """Megabytes of distributions, with what they require here; extras do not count."""
    from importlib.metadata import PackageNotFoundError, distribution

    from packaging.requirements import Requirement

    known, left, size = set(), list(names), 0
    while left:
        name = left.pop().lower().replace("_", "-")
        if name in known:
            continue
        known.add(name)
        try:
            found = distribution(name)
        except PackageNotFoundError:  # for another platform
            continue
        size += sum(path.stat().st_size for file in found.files or () if (path := found.locate_file(file)).is_file())
        wanted = map(Requirement, found.requires or ())
        left += [each.name for each in wanted if not each.marker or each.marker.evaluate({"extra": ""})]
    return round(size / 1e6)


def main(program, what, *paths):
    if program == "installed":
        return installed(what, *paths)
    if what == "embed":
        return lines_a_second(globals()[f"{program}_embed"](paths[-1]), paths[0])
    return tokens_a_second(globals()[f"{program}_tokens"](*paths), what)


if __name__ == "__main__":
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    print(json.dumps(main(*sys.argv[1:])))
