"""The commands as functions, for a program that holds a model: what they give is what the commands write.

Each method runs the command itself, in this process, on files of its own for standard input and output; models are
loaded once (`loaded.py`). An option has the name that the command's function gives it (`long`, `precision`, ...).
Errors are raised, as toast.errors.ToastError; what a command would warn of is on standard error.
"""

from __future__ import annotations

import json
import os
from tempfile import TemporaryFile

from toast import command, options
from toast.errors import BadInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import IO, Any

    import numpy as np

    from toast.command import Call


class Model:
    """A model by name; any number of threads may use it at once."""

    def __init__(self, name: str) -> None:
        from toast.store.resolve import find

        self.name = name = os.fspath(name)
        if not name:
            raise BadInput("a model has a name", 'toast.load("minilm")')
        call = command.caller("toast")
        try:
            path = call.path(name)
            if not os.path.isfile(path):  # a GGUF file, or what classify --learn has made
                path = find(call, name)
        finally:
            _close(call)

    def __repr__(self) -> str:
        return f"toast.load({self.name!r})"

    def encode(self, texts: Iterable[str], **given: Any) -> np.ndarray:
        """Vectors (N, dims), a row for each text: `embed`.

        Options: kind, dims, precision, no_normalize, long, batch."""
        import numpy as np

        with _Run("embed", _records(texts)) as run:
            run(self.name, given, ["kind", "dims", "precision", "no_normalize", "long", "batch"])
            found: np.ndarray = np.load(run.answer)
            return found

    def score(self, query: str, texts: Iterable[str], **given: Any) -> list[float]:
        """How well each text answers the query, from 0 to 1: `rerank`. Options: long, instruction, raw_scores."""
        with _Run("rerank", _records(texts)) as run:
            run(self.name, given, ["long", "instruction", "raw_scores"], query=query, json=True)
            found = sorted(run.objects(), key=lambda one: one["index"])
        return [one["score"] for one in found]

    def classify(
        self, texts: Iterable[str], labels: Mapping[str, str] | Sequence[str] = (), **given: Any
    ) -> list[dict[str, Any]]:
        """{"label", "score", "labels": [{"label", "score"}, ...]} of each text: `classify`.

        labels: names, or names with descriptions; none where the model has its own. A text that no label fits (with
        threshold or multi) has None or "" for its label.
        Options: multi, threshold, k, none, long, hypothesis."""
        with _Run("classify", _records(texts)) as run:
            named, own = _described(labels) or None, ["multi", "threshold", "k", "none", "long", "hypothesis"]
            run(self.name, given, own, labels=named, json=True)
            found = {one["row"]: {key: one[key] for key in ("label", "score", "labels")} for one in run.objects()}
            if given.get("threshold") is not None and not given.get("multi") and given.get("none") is None:
                nothing: dict[str, Any] = {"label": None, "score": None, "labels": []}
                found = {row: one if one["label"] else dict(nothing) for row, one in found.items()}
            return [found[row] for row in range(run.count)]

    def generate(self, instruction: str, text: str | None = None, **given: Any) -> str:
        """The answer to an instruction about a text: `toast`. Options: all of its that do not concern files or records
        (max_tokens, temperature, seed, system, schema, session, ...)."""
        named = [p.name for p in options.declared(command.named("toast").function)]
        with _Run("toast", text.encode("utf-8", "replace") if text else None) as run:
            run(self.name, given, [name for name in named if name not in UNFIT], instruction=instruction)
            return run.answer.read().decode().removesuffix("\n")


# options of `toast` that make something other than one answer of one text
UNFIT = {"instruction", "operands", "model", "dry_run", "samples", "repeat_input", "each", "nul", "jsonl", "field"}


class _Run:
    """One run of a command; `answer` is the file that it writes."""

    def __init__(self, name: str, stdin: bytes | None) -> None:
        self.command, self.stdin, self.count = command.named(name), stdin, (stdin or b"").count(b"\n")

    def __enter__(self) -> _Run:
        self.given: IO[bytes] = TemporaryFile()
        self.answer: IO[bytes] = TemporaryFile()
        self.given.write(self.stdin or b"")
        self.given.seek(0)
        return self

    def __exit__(self, *_: object) -> None:
        self.given.close()
        self.answer.close()

    def __call__(self, model: str, given: dict[str, Any], allowed: list[str], **own: Any) -> None:
        """Run it with the options that were given, of those that are allowed, and our own. TypeError for others."""
        if unknown := sorted(given.keys() - set(allowed)):
            raise TypeError(f"{self.command.name} has no {unknown[0]}= here (it takes {', '.join(allowed)})")
        jsonl = {} if self.command.name == "toast" else {"jsonl": True}
        call = command.caller(self.command.name, stdin=self.given.fileno(), stdout=self.answer.fileno())
        call = call.but(no_input=self.stdin is None)
        mine = options.declared(self.command.function)
        values = {p.name: _value(p, given[p.name]) for p in mine if p.name in given}
        try:
            self.command.function(call, **options.fill(mine, {**values, **jsonl, **own, "model": model}, call.env))
        finally:
            _close(call)
        self.answer.seek(0)

    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.answer]


def _value(parameter: options.Parameter, value: Any) -> Any:
    """As the command line would have it; UsageError for what it refuses."""
    if value is None or parameter.type is bool:
        return value
    return [parameter.convert(str(v)) for v in value] if parameter.many else parameter.convert(str(value))


def _records(texts: Iterable[str]) -> bytes:
    """JSON lines; a text may hold line breaks."""
    if isinstance(texts, str):
        raise BadInput("texts is one text", "a list of texts")
    lines = []
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise BadInput(f"text {row} is no text but {type(text).__name__}")
        lines.append(json.dumps({"row": row, "text": text}) + "\n")
    return "".join(lines).encode()


def _described(labels: Mapping[str, str] | Sequence[str]) -> list[tuple[str, str]]:
    if isinstance(labels, str):
        raise BadInput("labels is one text", "a list of names, or names with descriptions")
    found = list(labels.items()) if hasattr(labels, "items") else [(name, "") for name in labels]
    if not all(isinstance(part, str) for pair in found for part in pair):
        raise BadInput("a label is no text", "names and descriptions are texts")
    return found


def _close(call: Call) -> None:
    """Give up the descriptors that a call had for itself."""
    for fd in (call.cwd, *call.kept.values()):
        if fd is not None:
            os.close(fd)
