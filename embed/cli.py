"""The commands of this package: declarations, and the verb each one calls."""

from toast import start  # noqa: F401, I001  before anything that takes time
from toast.command import Call, command, silent
from toast.errors import Exit, UsageError
from toast.options import (
    EMPTY_OK,
    FIELD,
    JSONL,
    NUL,
    ON_ERROR,
    PARQUET,
    SOURCE,
    START,
    Argument,
    Option,
    need_with,
    refuse_unreachable,
    refuse_with,
)
from toast.pipes import clean
from toast.records import Records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _rows(call: Call, files: list[str], **given: "Any") -> Records:
    """The rows of Parquet files."""
    from toast.parquet import Rows

    return Rows(call, files, **given)


@command
def embed(
    call: Call,
    files: list[str] = Argument([], metavar="FILE", help="Text to read; standard input when none is given."),
    model: str = Option(
        "minilm", "-m", "--model", env="EMBED_MODEL", metavar="MODEL", help="A name, a folder, org/name.", group="Model"
    ),
    kind: str = Option(
        "document", "--as", choices=("query", "document"), help="Use the model's prompt for queries or for documents."
    ),
    long: str = Option(
        "truncate",
        "--long",
        choices=("truncate", "error", "mean"),
        help="What to do with records over the model's limit; mean: in pieces, averaged.",
    ),
    batch: int = Option(128, "--batch", metavar="N", min=1, help="Records computed at once."),
    dims: int | None = Option(
        None,
        "--dims",
        metavar="N",
        min=1,
        help="Cut vectors to this many numbers and renormalise.",
        group="Vectors",
        without="all",
    ),
    precision: str = Option(
        "f32", "--precision", choices=("f32", "f16", "int8", "binary"), help="Type of the numbers."
    ),
    no_normalize: bool = Option(False, "--no-normalize", help="Leave the vectors' lengths as the model gives them."),
    json: bool = Option(False, "--json", help='Write JSON lines: {"index", "embedding"}.'),
    raw: bool = Option(
        False, "--raw", help="Write bare little-endian rows, without a header; these may be concatenated."
    ),
    join: bool = Option(False, "--join", help="FILEs are .npy, @LIST names some: write the rows of all."),
    nul: bool = NUL,
    jsonl: bool = JSONL,
    parquet: bool = PARQUET,
    field: str | None = FIELD,
    on_error: str = ON_ERROR,
    source: str | None = SOURCE,
    first: int | None = START,
) -> None:
    """Turn each record (a line) into a vector.

    Vectors are written as .npy, a row for each record in their order.

    $ embed < notes.txt > vectors.npy
    $ embed *.txt > vectors.npy
    > python -c 'import numpy; print(numpy.load("vectors.npy").shape)'
    $ embed --field body --json < notes.jsonl | head -1
    $ embed --parquet --field body articles.parquet > vectors.parquet
    """
    if join:
        settings = {"--dims": dims, "--json": json, "--raw": raw, "--parquet": parquet, "--jsonl": jsonl, "-0": nul}
        refuse_with("--join", settings)
        from embed.inputs import listed
        from embed.join import join as join_files

        return join_files(call, listed(call, files))
    read = _rows if parquet else Records
    need_with("--json", {"--source": source, "--start": first}, there=json)
    records = read(
        call, files, nul=nul, jsonl=jsonl, field=field, on_error=on_error, source=source, start=first
    )  # fmt: skip
    from embed import encode

    encoder = encode.Encoder(call, model, kind=kind, dims=dims, normalized=not no_normalize, long=long, size=batch)
    encode.embed(call, records, encoder, precision=precision, json=json, raw=raw, parquet=parquet)


@command
def index(
    call: Call,
    paths: list[str] = Argument(
        [], metavar="PATH", help="Files and directories; without any, records on standard input."
    ),
    output: str | None = Option(
        None, "-o", "--output", metavar="INDEX", help="Build INDEX, replacing it when all is done.", group="Index"
    ),
    update: str | None = Option(
        None, "-u", "--update", metavar="INDEX", help="Bring INDEX up to date, or make it; embeds only new text."
    ),
    model: str | None = Option(
        None,
        "-m",
        "--model",
        metavar="MODEL",
        help="Embedding model; -u keeps to its own.",
        without="$EMBED_MODEL, else minilm",
    ),
    chunk: str | None = Option(
        None,
        "--chunk",
        choices=("auto", "paragraphs", "lines"),
        help="Cut files at sections (logs at entries), at paragraphs or at lines.",
        without="auto",
    ),
    exact: bool = Option(False, "--exact", help="Keep float32 vectors too; the index is five times as large."),
    merge: bool = Option(False, "--merge", help="PATHs are indexes, @LIST names some: join them."),
    split: int | None = Option(
        None, "--split", metavar="N", min=2, help="PATH is an index: make N of it, FILE-1.db to FILE-N.db of -o FILE."
    ),
    files_from: str | None = Option(
        None,
        "--files-from",
        metavar="FILE",
        help="Read the names of all files from FILE (-: standard input), one a line (-0: NUL). With -u, others are dropped.",
        group="Files",
    ),
    exclude: list[str] = Option(
        [], "--exclude", metavar="GLOB", help="Skip files and folders like GLOB, as of search --path."
    ),
    hidden: bool = Option(
        False,
        "--hidden",
        help="Hidden files and folders, too; what .gitignore and .ignore name stays out, unless it is named.",
    ),
    largest: int = Option(16, "--max-filesize", metavar="MB", min=1, help="Skip larger files."),
    nul: bool = NUL,
    jsonl: bool = JSONL,
    field: str | None = FIELD,
    id: str | None = Option(
        None,
        "--id",
        metavar="NAME",
        help="The field that identifies a record; implies --jsonl.",
        group="Records",
        empty=False,
    ),
    parquet: bool = PARQUET,
    on_error: str = ON_ERROR,
    source: str | None = SOURCE,
    first: int | None = START,
    empty_ok: bool = EMPTY_OK,
) -> int:
    """Make one searchable file of text.

    $ index docs/ > docs.db
    $ index -u docs.db docs/
    $ find . -name '*.md' -print0 | index -0 --files-from - > notes.db
    $ index --field body --id key < articles.jsonl > articles.db

    Status 1: No text was found.
    """
    from embed import documents, schema
    from embed import index as verb
    from toast import files as whole

    if output and update:
        raise UsageError("-o and -u exclude each other")
    if update == "-":
        raise UsageError("-u brings a file up to date, and - names none", "index ... > index.db")
    if split:
        refuse_with("--split", {"-o -": output == "-"})
    else:
        output = whole.output(call, output, what="index", ours=schema.is_index, like="index -o notes.db")
    if update is not None:
        whole.check_output(call, update)
    if merge or split:
        settings = {
            "-m": model, "--chunk": chunk, "--exact": exact, "--jsonl": jsonl, "--field": field, "--id": id,
            "--parquet": parquet, "--source": source, "--start": first,
        }  # fmt: skip
        refuse_with("--merge" if merge else "--split", {
            "--split": split if merge else None, "-u": update, "--files-from": files_from, "-0": nul, **settings
        })  # fmt: skip
        from embed import merge as join
        from embed import split as parts
        from embed.inputs import listed

        if split:
            parts.split(call, paths, output, count=split)
        else:
            join.merge(call, listed(call, paths), output)
        return 0
    records = not paths or jsonl or field or id or parquet
    refuse_with("--files-from" if files_from else "PATH", {"--source": source if paths or files_from else None})
    need_with("records", {"--start": first}, there=bool(records))
    if nul and not (records or files_from):
        raise UsageError("-0 is for records and for --files-from", "a FILE is not cut at NUL")
    if "-" in paths and files_from:
        raise UsageError("- names no file beside --files-from", "index --files-from -")
    if "-" in paths and not records and len(paths) > 1:
        raise UsageError("- goes alone, or with --jsonl", "index FILE... < /dev/null")
    found = documents.source(
        call, paths, files_from=files_from, largest=largest << 20, hidden=hidden, excluded=exclude, parquet=parquet,
        nul=nul, jsonl=jsonl or bool(id), field=field, id=id, lines="-" in paths, on_error=on_error, called=source,
        first=first,
    )  # fmt: skip
    status = verb.index(call, found, output=output, update=update, name=model, mode=chunk, exact=exact, empty=empty_ok)
    return Exit.OK if empty_ok and status == Exit.NONE else status


@silent("No hits on standard output, no warnings: the status is the answer, as of grep -q.")
def search(
    call: Call,
    query: str | None = Argument(None, metavar="QUERY", help="What to look for."),
    files: list[str] = Argument(
        [],
        metavar="FILE",
        help="Indexes, texts (searched section by section, logs entry by entry), directories, @LIST of such names; else standard input (line by line, its name is -), else the nearest .index.db.",
    ),
    index: list[str] = Option([], "-i", "--index", metavar="INDEX", help="An index, or @LIST of some.", group="What"),
    queries: str | None = Option(
        None,
        "--queries",
        metavar="FILE",
        help="Answer each query of FILE: a line, or a JSON object with a text. Hits have its number before them, from 0 on, and a colon.",
    ),
    like: str | None = Option(
        None, "--like", metavar="FILE", help="In place of QUERY: what is like the text of FILE (-: standard input)."
    ),
    dupes: bool = Option(
        False,
        "--dupes",
        help="In place of QUERY: groups of what says nearly the same; each line of a FILE is a record.",
    ),
    path: list[str] = Option(
        [],
        "--path",
        metavar="GLOB",
        help="Only files and folders of this name, or path if GLOB has a slash: 'docs', '*.{md,txt}', './docs/*', '!*.log'. More than one add up.",
    ),
    where: list[str] = Option(
        [],
        "--where",
        metavar="FIELD=VALUE",
        help="Only records with this value; also !=, <, <=, >, >=, and author.name. More than one: with all of them.",
    ),
    mode: str = Option(
        "hybrid", "--mode", choices=("hybrid", "vector", "lexical"), help="How hits are ranked.", group="Ranking"
    ),
    k: int | None = Option(
        None,
        "-k",
        metavar="N",
        min=1,
        help="At most N hits for a query; of --dupes, N groups.",
        without="10; all of --dupes",
    ),
    threshold: float | None = Option(
        None,
        "--threshold",
        metavar="S",
        help="Only hits that score at least S, from 0 to 1 but of --mode lexical; 0: all. Of --dupes, the cosine.",
        without="a floor for the best hit; 0.95 of --dupes",
    ),
    per_file: int | None = Option(
        None, "--per-file", metavar="N", min=1, help="At most N hits of a file.", without="any number"
    ),
    rerank: bool = Option(
        False, "--rerank", help="Sort the best hits again by a model that looks at each of them with the query."
    ),
    rerank_model: str = Option(
        "minilm", "--rerank-model", env="RERANK_MODEL", metavar="MODEL", help="The model of --rerank."
    ),
    model: str | None = Option(
        None,
        "-m",
        "--model",
        metavar="MODEL",
        help="Where to find the embedding model of the index.",
        without="its name",
    ),
    paths: bool = Option(
        False,
        "-l",
        "--files-with-matches",
        help="Print the paths of the best -k files that answer, copies too.",
        group="Hits",
    ),
    count: bool = Option(
        False, "-c", "--count", help="Print each path with the number of its hits that answer, among the -k best."
    ),
    after: int | None = Option(None, "-A", "--after-context", metavar="N", min=0, help="Lines after the best line."),
    before: int | None = Option(None, "-B", "--before-context", metavar="N", min=0, help="Lines before the best line."),
    context: int | None = Option(None, "-C", "--context", metavar="N", min=0, help="Lines around the best line."),
    json: bool = Option(
        False, "--json", help='Write JSON lines: {"path", "start_line", "end_line", "line", "score", "text"}.'
    ),
    scores: bool = Option(False, "--scores", help="Write SCORE<TAB> before each hit."),
    explain: bool = Option(False, "--explain", help="Write the scores of the vector and of the words, too."),
    color: str = Option(
        "auto", "--color", choices=("auto", "always", "never"), help="Colours, and on a terminal links to the files."
    ),
    lines: bool = Option(
        False, "--lines", help="Each line of a FILE is a record, as of standard input.", group="Records"
    ),
    nul: bool = NUL,
    jsonl: bool = JSONL,
    field: str | None = FIELD,
    on_error: str = ON_ERROR,
) -> int:
    """Find what answers a query, by its meaning and by its words.

    $ search "how do I install it" < docs.db
    $ search "what is left to do" notes.md todo.txt
    $ search --like notes.md -i docs.db
    $ search --dupes < notes.txt
    $ search -q "zebra" < docs.db || echo "no zebra"
    $ search -k 50 --json "disk full" < docs.db |
    > rerank --field text "disk full" | head -5

    Status 1: Nothing was found; of --dupes, no two are alike.
    """
    from embed import hits
    from embed import inputs as sources
    from embed import model as model_of
    from embed import search as verb

    model_of.refuse_number(call, model)
    others = {"--queries": queries is not None, "--like": like is not None, "--dupes": dupes}
    if instead := [flag for flag, given in others.items() if given]:
        files = [query, *files] if query else files
        refuse_with(instead[0], dict.fromkeys(instead[1:], True))
        if "-" in (queries, like) and "-" in (*index, *files):
            raise UsageError(f"{instead[0]} - and - both want standard input", "name a FILE for one of them")
    elif not query or not query.strip():
        raise UsageError("nothing to look for", "search QUERY [FILE...]")
    if json:
        refuse_with("--json", {"-l": paths, "-c": count, "-A": after, "-B": before, "-C": context})
    if dupes:
        around = {"-A": after, "-B": before, "-C": context}
        refuse_with("--dupes", {"-l": paths, "-c": count, "--per-file": per_file, "--rerank": rerank, **around})
        if threshold is not None and not 0 <= threshold <= 1:
            raise UsageError(f"--threshold of --dupes must be from 0 to 1, not {threshold:g}", "it is a cosine")
    elif rerank or mode == "hybrid":
        refuse_unreachable("--threshold", threshold)
    elif mode == "vector":  # BM25 alone has no end
        refuse_unreachable("--threshold", threshold, "cosines are from -1 to 1")
    if like is not None:
        refuse_with("--like", {"--rerank": rerank})
    before, after = ((context or 0) if side is None else side for side in (before, after))
    printer = hits.Printer(
        call, json=json, scores=scores, explain=explain, paths=paths, count=count, before=before, after=after, nul=nul,
        many=queries is not None, grouped=dupes, color=color,
    )  # fmt: skip
    asked = [clean(query or "")] if queries is None else sources.read_queries(call, queries)
    index, files = sources.listed(call, index), sources.listed(call, files)
    inputs = sources.Inputs(
        index, files, nul=nul, jsonl=jsonl, field=field, on_error=on_error, lines=lines or dupes, query=query or ""
    )  # fmt: skip
    wanted = verb.Wanted(
        k=k or 10, mode=mode, threshold=threshold, filter=verb.filter_of(call, path, where),
        per_file=per_file, paths=paths, files=paths or count, model=model, rerank=rerank_model if rerank else None,
    )  # fmt: skip
    if dupes:
        from embed.dupes import dupes as find

        return find(call, inputs, wanted=wanted, printer=printer, most=k)
    if like is not None:
        from embed.like import Sample

        wanted.like = Sample(call, like)
    if "-" in (queries, like):
        call = call.but(no_input=True)  # it has been read
    return verb.search(call, asked, inputs, wanted=wanted, printer=printer)
