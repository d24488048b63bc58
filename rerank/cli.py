"""The commands of this package: declarations, and the verb each one calls."""

from toast.command import Call, command
from toast.options import FIELD, JSONL, NUL, Argument, Option
from toast.pipes import Records


@command
def rerank(
    call: Call,
    query: str = Argument("", metavar="QUERY", help="What to rank by."),
    files: list[str] = Argument([], metavar="FILE", help="Records to rank; standard input when none is given."),
    model: str = Option(
        "minilm", "-m", "--model", env="RERANK_MODEL", metavar="MODEL",
        help="A cross-encoder, Qwen3-Reranker, late-interaction or embedding model: a name, a folder.",
    ),
    k: int | None = Option(None, "-k", metavar="N", min=1, help="Only the best N records of each query."),
    threshold: float | None = Option(None, "--threshold", metavar="S", help="Only records that score at least S."),
    scores: bool = Option(False, "--scores", help="Write SCORE<TAB>RECORD; scores are from 0 to 1."),
    raw_scores: bool = Option(False, "--raw-scores", help="As --scores, with the model's logit as the score."),
    long: str = Option(
        "best", "--long", choices=("best", "truncate", "error"), help="Records over the model's limit: best of their windows."
    ),
    instruction: str | None = Option(None, "--instruction", metavar="TEXT", help="What counts as an answer (Qwen3-Reranker)."),
    group: str | None = Option(None, "--group", metavar="FIELD", help="Rank the records apart that differ in this field; implies --jsonl."),
    query_field: str | None = Option(
        None, "--query-field", metavar="FIELD", help="Take the query from this field instead; implies --jsonl."
    ),
    nul: bool = NUL,
    jsonl: bool = JSONL,
    field: str | None = FIELD,
    json: bool = Option(False, "--json", help='Write JSON lines: {"index", "score", "text"}.'),
):
    """Sort records by relevance to a query, best first: rerank "query" < candidates.txt

    search -k 50 --json "query" < index.db | rerank --field text "query" | head -5

    rerank --threshold 0.5 --scores "disk is full" < log.txt
    """
    if query_field:
        files, query = [query, *files] if query else files, ""
    records = Records(call, files, nul, jsonl or bool(group or query_field), field)
    from rerank import score
    from toast import relevance

    form = score.Form(k, threshold, scores, raw_scores, json, b"\0" if nul else b"\n")
    scorer = relevance.open_scorer(call, model, instruction)
    return score.rerank(call, records, scorer, query, form, long, group, query_field)
