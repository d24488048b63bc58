"""The commands of this package: declarations, and the verb each one calls."""

from toast.command import Call, command
from toast.errors import UsageError
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


@command
def index(
    call: Call,
    paths: list[str] = Argument([], metavar="PATH", help="Files and directories; without any, records on standard input."),
    output: str | None = Option(None, "-o", "--output", metavar="FILE", help="Build FILE, replacing it when all is done."),
    update: str | None = Option(None, "-u", "--update", metavar="FILE", help="Bring FILE up to date; embeds only new text."),
    merge: bool = Option(False, "--merge", help="PATHs are indexes: join them."),
    files_from: str | None = Option(None, "--files-from", metavar="FILE", help="Names of files, one a line (-0: NUL); - is standard input."),
    model: str | None = Option(None, "-m", "--model", env="EMBED_MODEL", metavar="MODEL", help="Embedding model [minilm]."),
    chunk: str | None = Option(None, "--chunk", choices=("auto", "paragraphs", "lines"), help="How files are cut [auto]."),
    exact: bool = Option(False, "--exact", help="Keep float32 vectors too: five times the size."),
    largest: int = Option(16, "--max-filesize", metavar="MB", min=1, help="Skip larger files in directories."),
    nul: bool = NUL,
    jsonl: bool = JSONL,
    field: str | None = FIELD,
    id: str | None = Option(None, "--id", metavar="NAME", help="The field that identifies a record; implies --jsonl."),
):
    """Make one searchable file of text: index docs/ > docs.db

    index -u docs.db docs/

    find . -name '*.md' -print0 | index -0 --files-from - > notes.db

    index --field body --id key < articles.jsonl > articles.db
    """
    from embed import index as verb

    if output and update:
        raise UsageError("-o and -u exclude each other")
    if merge:
        from embed.merge import merge as join

        return join(call, paths, output)
    source = verb.source(call, paths, files_from, largest << 20, nul, jsonl or bool(id), field, id)
    verb.index(call, source, output, update, model, chunk, exact)


@command
def search(call: Call):
    """later"""
