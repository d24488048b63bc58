"""The commands of this package: declarations, and the verb each one calls."""

from toast import start  # noqa: F401, I001  before anything that takes time
from toast.command import Call, command
from toast.errors import UsageError
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
from toast.records import Records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _rows(call: Call, files: list[str], **given: "Any") -> Records:
    """The rows of Parquet files."""
    from toast.parquet import Rows

    return Rows(call, files, **given)


@command
def rerank(
    call: Call,
    query: str = Argument("", metavar="QUERY", help="What to rank by; it comes before any FILE."),
    files: list[str] = Argument([], metavar="FILE", help="Records to rank; standard input when none is given."),
    model: str = Option(
        "minilm",
        "-m",
        "--model",
        env="RERANK_MODEL",
        metavar="MODEL",
        help="A cross-encoder, Qwen3-Reranker, late-interaction or embedding model: a name, a folder.",
        group="Model",
    ),
    instruction: str | None = Option(
        None, "--instruction", metavar="TEXT", help="What counts as an answer (Qwen3-Reranker)."
    ),
    long: str = Option(
        "best",
        "--long",
        choices=("best", "truncate", "error"),
        help="Records over the model's limit; best: the best of their windows.",
    ),
    query_field: str | None = Option(
        None,
        "--query-field",
        metavar="FIELD",
        help="Take the query from this field instead; implies --jsonl.",
        group="Query",
    ),
    group: str | None = Option(
        None, "--group", metavar="FIELD", help="Rank the records apart that differ in this field; implies --jsonl."
    ),
    k: int | None = Option(
        None, "-k", metavar="N", min=1, help="Only the best N records of each query.", group="Answer", without="all"
    ),
    threshold: float | None = Option(
        None,
        "--threshold",
        metavar="S",
        help="Only records that score at least S, with --raw-scores in logits. What is enough depends on model and texts: --scores shows it; in logs .02 is much, in passages of one subject .2.",
    ),
    scores: bool = Option(False, "--scores", help="Write SCORE<TAB>RECORD; scores are from 0 to 1."),
    raw_scores: bool = Option(False, "--raw-scores", help="As --scores, with the model's logit as the score."),
    json: bool = Option(False, "--json", help='Write JSON lines: {"index", "score", "text"}.'),
    nul: bool = NUL,
    jsonl: bool = JSONL,
    field: str | None = FIELD,
    on_error: str = ON_ERROR,
    empty_ok: bool = EMPTY_OK,
    first: int | None = START,
) -> int:
    """Sort records by relevance to a query, best first.

    $ rerank "what is left to do" < todo.txt
    $ search -k 50 --json "disk full" < docs.db |
    > rerank --field text "disk full" | head -5
    $ rerank --threshold 0.02 --scores "the disk is full" < log.txt

    Status 1: There are no records, or none scores --threshold.
    """
    if query_field:
        files, query = [query, *files] if query else files, ""
    if not raw_scores:
        refuse_unreachable("--threshold", threshold, "scores are from 0 to 1; --raw-scores have no end")
    need_with("--json", {"--start": first}, there=json)
    records = Records(
        call, files, nul=nul, jsonl=jsonl or bool(group or query_field), field=field, on_error=on_error, start=first
    )
    from rerank import score
    from toast.encoding import relevance

    form = score.Form(
        k=k, threshold=threshold, scores=scores, raw_scores=raw_scores, json=json, end=b"\0" if nul else b"\n"
    )
    scorer = relevance.open_scorer(call, model, instruction)
    status = score.rerank(
        call, records, scorer, form=form, query=query, long=long, group=group, query_field=query_field
    )
    return 0 if empty_ok and records.empty else status


@command
def classify(
    call: Call,
    files: list[str] = Argument([], metavar="FILE", help="Records to label; standard input when none is given."),
    labels: str | None = Option(
        None, "-l", "--labels", metavar="A,B,C", help=r"The labels; \, is a comma within one.", group="Labels"
    ),
    label_file: str | None = Option(
        None,
        "-L",
        "--label-file",
        metavar="FILE",
        help=r"Labels, one on each line: label, or label: description (\: is a colon within one); after a tab, the least score.",
    ),
    model: str = Option(
        "minilm",
        "-m",
        "--model",
        env="EMBED_MODEL",
        metavar="MODEL",
        help="A classifier, an NLI model, an LLM, an embedding model or a probe of --learn.",
    ),
    multi: bool = Option(
        False, "--multi", help="A record may have any number of labels: those that score at least the threshold."
    ),
    threshold: float | None = Option(
        None, "--threshold", metavar="S", help="Only labels that score at least S.", without="none; 0.5 of --multi"
    ),
    none: str | None = Option(
        None,
        "--none",
        metavar="NAME",
        help="The label of records that no label is given, under a threshold or --multi.",
    ),
    hypothesis: str | None = Option(
        None,
        "--hypothesis",
        metavar="TEXT",
        help="What an NLI model tests, {} for the label.",
        without="This example is {}.",
    ),
    long: str = Option(
        "best",
        "--long",
        choices=("best", "mean", "truncate", "error"),
        help="Records over the model's limit: each label's best score in their pieces, or the mean.",
    ),
    k: int | None = Option(
        None,
        "-k",
        metavar="N",
        min=1,
        help="Write the best N labels of each record, a line for each.",
        group="Answer",
        without="1",
    ),
    only: list[str] = Option(
        [], "--only", metavar="LABEL", help="Write the bare records with this label, as grep would."
    ),
    invert: bool = Option(False, "--invert", help="With --only: the records without it."),
    count: bool = Option(False, "-c", "--count", help="Write the number of records: with --only, else of each label."),
    json: bool = Option(
        False, "--json", help='Write JSON lines: {"label", "score", "labels", "text"}, and "index" with --start.'
    ),
    learn: str | None = Option(
        None,
        "--learn",
        metavar="FILE",
        help='Learn a probe from JSON lines {"text", "label" or "labels"}, label<TAB>text lines or a folder; needs -o.',
        group="Learning",
    ),
    output: str | None = Option(None, "-o", "--output", metavar="FILE", help="Where --learn writes the probe."),
    report: str | None = Option(
        None,
        "--report",
        metavar="FILE",
        help="Accuracy, calibration and confusions on examples, as --learn reads them.",
    ),
    errors: bool = Option(False, "--errors", help="With --report: each mistake, by file and line."),
    next_ones: int | None = Option(
        None, "--next", metavar="N", min=1, help="Write the N records to label next: uncertain ones, and unlike."
    ),
    group: int | None = Option(
        None, "--group", metavar="K", min=1, help="Put the records into K groups: their size, words and typical record."
    ),
    nul: bool = NUL,
    jsonl: bool = JSONL,
    field: str | None = FIELD,
    on_error: str = ON_ERROR,
    empty_ok: bool = EMPTY_OK,
    parquet: bool = PARQUET,
    source: str | None = SOURCE,
    first: int | None = START,
) -> int | None:
    """Label each record: LABEL<TAB>SCORE<TAB>RECORD.

    $ classify -l "bug,feature request" < issues.txt
    $ classify -l spam,mail --only spam < inbox.txt
    $ classify --learn examples.jsonl -o issues.probe
    > classify -m issues.probe < issues.txt

    Status 1: No record has a label; with --only, none has this one.
    """
    from rerank import classify as verb
    from rerank import labels as names

    own = {"-l": labels, "-L": label_file, "--hypothesis": hypothesis}
    chosen = {"-k": k, "--threshold": threshold, "--only": only, "--invert": invert, "-c": count, "--none": none}
    written = {**chosen, "--json": json, "-0": nul, "--parquet": parquet}
    need_with("--json", {"--source": source, "--start": first}, there=json)
    if count:
        refuse_with("-c", {"--json": json, "-k": k})
    if output is not None and learn is None:
        raise UsageError("-o goes with --learn", "classify --learn examples.jsonl -o model.probe")
    if errors and report is None:
        raise UsageError("--errors goes with --report FILE")
    if group is not None:
        refuse_with("--group", {**own, **chosen, "--multi": multi, "--learn": learn, "--report": report,
                                "--next": next_ones, "--source": source, "--parquet": parquet})  # fmt: skip
        from rerank import groups

        records = Records(call, files, nul=nul, jsonl=jsonl, field=field, on_error=on_error, start=first)
        status = groups.group(call, records, model=model, count=group, json=json)
        return 0 if empty_ok and records.empty else status
    if learn is not None:
        if not learn or learn[0] == "-" != learn:
            raise UsageError(
                "--learn wants a FILE, - for standard input", "classify --learn examples.jsonl -o model.probe"
            )
        refuse_with("--learn", {"--report": report, "FILE": files, "--multi": multi, "--hypothesis": hypothesis,
                                "--next": next_ones, "--source": source, "--start": first, **written})  # fmt: skip
        from rerank import learn as lesson

        given = names.read(call, labels, label_file)
        lesson.learn(call, model, learn, given=given, whence=label_file or "-l", output=output, field=field)
        return None
    if report is not None:
        refuse_with("--report", {"FILE": files, "--next": next_ones, "--source": source, "--start": first, **written})
    if next_ones is not None:
        refuse_with("--next", {**chosen, "--multi": multi})
    rows = parquet and not json  # as they come, and columns beside them
    if rows:
        refuse_with("--parquet", {"-k": k, "--only": only, "--invert": invert, "-c": count, "--next": next_ones})
    given = names.read(call, labels, label_file)
    form = verb.Form(
        k=k, multi=multi, threshold=threshold, only=only, invert=invert, count=count, json=json, none=none,
        thresholds={label.name: label.threshold for label in given if label.threshold is not None},
        numbered=first is not None, end=b"\0" if nul else b"\n",
    )  # fmt: skip
    from rerank import engines

    use = engines.Use(given, multi=multi, long=long, hypothesis=hypothesis)
    if report is not None:
        from rerank import report as table

        return table.report(call, report, engines.open_engine(call, model, use), field=field, errors=errors)
    read: Any = _rows if parquet else Records
    records = read(call, files, nul=nul, jsonl=jsonl, field=field, on_error=on_error, source=source, start=first)
    engine = engines.open_engine(call, model, use)
    if next_ones is not None:
        from rerank import next_records

        status = next_records.choose(call, records, engine, count=next_ones, form=form)
    elif rows:
        from rerank import columns

        status = columns.classify(call, records, engine, form=form)
    else:
        status = verb.classify(call, records, engine, form=form)
    return 0 if empty_ok and records.empty else status
