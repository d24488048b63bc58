"""The commands of this package: declarations, and the verb each one calls."""

from toast.command import Call, command
from toast.options import FIELD, JSONL, NUL, Argument, Option
from toast.pipes import Records


@command
def embed(
    call: Call,
    files: list[str] = Argument([], metavar="FILE", help="Text to read; standard input when none is given."),
    model: str = Option(
        "minilm", "-m", "--model", env="EMBED_MODEL", metavar="MODEL", help="Embedding model: a name, a folder."
    ),
    kind: str = Option("document", "--as", choices=("query", "document"), help="Which of the model's prompts to use."),
    dims: int | None = Option(None, "--dims", metavar="N", min=1, help="Cut vectors to this many numbers and renormalise."),
    precision: str = Option("f32", "--precision", choices=("f32", "f16", "int8", "binary"), help="Type of the numbers."),
    no_normalize: bool = Option(False, "--no-normalize", help="Leave the vectors' lengths as the model gives them."),
    long: str = Option(
        "truncate", "--long", choices=("truncate", "error", "mean"), help="Records over the model's limit."
    ),
    batch: int = Option(32, "--batch", metavar="N", min=1, help="Records computed together."),
    nul: bool = NUL,
    jsonl: bool = JSONL,
    field: str | None = FIELD,
    json: bool = Option(False, "--json", help='Write JSON lines: {"index", "embedding"}.'),
    raw: bool = Option(False, "--raw", help="Write bare little-endian rows, without a header."),
):
    """Turn each record (a line) into a vector: embed < file.txt > vectors.npy

    embed *.txt | python -c 'import sys, numpy; print(numpy.load(sys.stdin.buffer).shape)'

    embed --field body --json < notes.jsonl | head -1
    """
    records = Records(call, files, nul, jsonl, field)
    from embed import encode

    encoder = encode.Encoder(call, model, kind, dims, not no_normalize, long, batch)
    encode.embed(call, records, encoder, precision, json, raw)
