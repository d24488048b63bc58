"""The commands of this package: declarations, and the verb each one calls."""

from toast import start  # noqa: F401, I001  before anything that takes time
from toast.command import Call, command
from toast.errors import UsageError
from toast.options import FIELD, JSONL, NUL, Argument, Option, refuse_with
from toast.pipes import clean
from toast.records import Records

MODEL = Option("smollm2", "-m", "--model", env="TOAST_MODEL", metavar="MODEL", help="A name, a folder or a .gguf file.")


@command
def toast(
    call: Call,
    instruction: str = Argument(
        "",
        metavar="[INSTRUCTION]",
        help="What to do with standard input, or a question; @FILE holds it, {{input}} in that file is where standard input goes.",
    ),
    operands: list[str] = Argument([], metavar="FILE", help="Files to read, under their names."),
    model: str = MODEL,
    system: str = Option("", "-s", "--system", metavar="TEXT|@FILE", help="System prompt."),
    files: list[str] = Option([], "-f", "--file", metavar="FILE", help="A file to read, under its name; repeatable."),
    prefill: str = Option("", "--prefill", metavar="TEXT", help="How the answer begins."),
    no_template: bool = Option(False, "--no-template", help="Give the text as it is, without chat template."),
    template: list[str] = Option(
        [], "--template", metavar="KEY=VALUE", help="A variable of the chat template, as JSON or text; repeatable."
    ),
    think: str | None = Option(
        None, "--think", metavar="on|off|N", help="Whether to reason before the answer; N: in so many tokens at most."
    ),
    long: str = Option("error", "--long", choices=("error", "truncate"), help="A prompt over the model's context."),
    max_tokens: int | None = Option(
        None, "-n", "--max-tokens", metavar="N", min=1, help="Tokens of the answer, at most."
    ),
    temperature: float | None = Option(
        None, "-t", "--temperature", metavar="T", min=0, help="0: always the likeliest token."
    ),
    top_p: float | None = Option(
        None, "--top-p", metavar="P", min=0, max=1, help="Draw from the likeliest tokens that hold P."
    ),
    top_k: int | None = Option(None, "--top-k", metavar="K", min=0, help="Draw from the K likeliest tokens."),
    min_p: float | None = Option(
        None, "--min-p", metavar="P", min=0, max=1, help="Drop tokens under P times the likeliest."
    ),
    repeat_penalty: float | None = Option(
        None,
        "--repeat-penalty",
        metavar="X",
        min=0.01,
        help="Over 1: tokens seen so far, prompt included, get less likely.",
    ),
    dry: float | None = Option(
        None,
        "--dry",
        metavar="X",
        min=0,
        help="Over 0: a token that would repeat the answer loses X, and more the longer it repeats.",
    ),
    seed: int = Option(0, "--seed", metavar="N", min=0, max=(1 << 64) - 1, help="Another seed, another draw."),
    stop: list[str] = Option([], "--stop", metavar="TEXT", help="End the answer before this text; repeatable."),
    code: bool = Option(False, "-x", "--extract", help="Print only the first fenced code block."),
    json: bool = Option(False, "--json", help='Write {"text", "finish_reason", "prompt_tokens", "tokens", "logprob"}.'),
    logprobs: int | None = Option(
        None, "--logprobs", metavar="K", min=0, help="With --json: K alternatives to each token."
    ),
    schema: str | None = Option(
        None, "--schema", metavar="FILE|JSON", help="The answer is JSON that is valid by this schema."
    ),
    regex: str | None = Option(
        None,
        "--regex",
        metavar="REGEX",
        help=r"The answer matches this regular expression, in which \d, \w and \s are ASCII.",
    ),
    choice: str | None = Option(
        None, "--choice", metavar="A,B,C|@FILE", help="The answer is one of these; a FILE holds one a line."
    ),
    grammar: str | None = Option(None, "--grammar", metavar="FILE", help="The answer follows this Lark grammar."),
    session: str | None = Option(None, "--session", metavar="NAME", help="Go on with the conversation of this name."),
    forget: bool = Option(False, "--forget", help="With --session: forget what was said; an INSTRUCTION begins anew."),
    no_loop_stop: bool = Option(False, "--no-loop-stop", help="Let an answer go on that only repeats itself."),
    no_cache: bool = Option(False, "--no-cache", help="Neither look for nor keep what was read of a prompt."),
    dry_run: bool = Option(False, "--dry-run", help="Write the prompt and tell of its tokens; load no weights."),
    samples: int | None = Option(
        None, "--samples", metavar="K", min=1, help="K answers, a line each, drawn with seeds N, N+1, ..."
    ),
    repeat_input: bool = Option(
        False, "--repeat-input", help="Write standard input before the answer, as editors' filters want it."
    ),
    each: bool = Option(False, "--each", help="Every record of standard input is a question, every answer a line."),
    nul: bool = NUL,
    jsonl: bool = JSONL,
    field: str | None = FIELD,
    warm: str | None = Option(
        None, "-p", metavar="toasted", choices=("toasted",), help="Insist on the warm process (not there yet)."
    ),
) -> int | None:
    """Text in, instruction, text out: cat notes.md | toast "explain"

    toast "what differs?" a.py b.py

    toast --each "translate to French" < lines.txt

    git diff | toast --strict -n 200 "a commit message for this" > message
    """
    from toast import question
    from toast.session import Session

    # 1) what the options exclude
    question.check_operands(call, instruction, operands)
    if warm:
        raise UsageError("this version has no warm process", "leave -p out: the answer is the same")
    _need({"--jsonl": jsonl, "--field": field is not None, "-0": nul}, "--each", there=each or samples is not None)
    _need({"--forget": forget}, "--session", there=session is not None)
    if "" in stop:
        raise UsageError("--stop needs a text: an empty one is everywhere")
    talk = Session(call, session) if session is not None else None
    if talk and forget:
        talk.forget()
        if not instruction:
            return None
    rule = question.rule(call, {"schema": schema, "regex": regex, "choice": choice, "grammar": grammar})
    if each:
        refuse_with(
            "--each",
            {"--session": session or None, "--samples": samples, "--repeat-input": repeat_input, "--dry-run": dry_run},
        )
    if samples:
        refuse_with("--samples", {"--session": session or None, "--repeat-input": repeat_input})
    if repeat_input:
        refuse_with("--repeat-input", {"--json": json, "--logprobs": logprobs})
    if rule:
        refuse_with("a constraint", {"--stop": stop, "-x": code, "--prefill": prefill or None})
    if no_template:
        refuse_with("--no-template", {"--template": template})
    # 2) what is asked of which model
    from toast.answer import Request
    from toast.answer import dry_run as show_prompt
    from toast.answer import toast as answer
    from toast.generation.engine import Engine
    from toast.generation.prompt import Think, variables

    sampling = {"temperature": temperature, "top_p": top_p, "top_k": top_k, "min_p": min_p,
                "repeat_penalty": repeat_penalty, "dry": dry, "seed": seed}  # fmt: skip
    engine = Engine(call, model, weights=not dry_run, think=Think.of(think), variables=variables(template))
    request = Request(
        engine, instruction=instruction, system=system, files=[*operands, *files], sampling=sampling, limit=max_tokens,
        stops=[*map(clean, stop)], code=code, prefill=clean(prefill), template=not no_template, long=long, json=json,
        logprobs=logprobs, cache=not no_cache, loop_stop=not no_loop_stop, session=talk,
        constraint=engine.constraint(*rule) if rule and not dry_run else None, repeat_input=repeat_input,
    )  # fmt: skip
    # 3) one answer, or one for each record
    if dry_run:
        show_prompt(call, request)
        return None
    if not (each or samples):
        return answer(call, request)
    from toast.each import answer_each, answer_samples

    if samples:
        answer_samples(call, request, samples, nul=nul)
    else:
        answer_each(call, request, Records(call, None, nul=nul, jsonl=jsonl, field=field, soft=True))
    return None


def _need(given: dict[str, bool], needed: str, *, there: bool) -> None:
    """Options that would do nothing without another one."""
    for option, wanted in given.items():
        if wanted and not there:
            raise UsageError(f"{option} needs {needed}")


@command
def tokenize(
    call: Call,
    model: str = MODEL,
    ids: bool = Option(False, "--ids", help="Write token ids only, one a line."),
    count: bool = Option(False, "--count", help="Write the number of tokens."),
    decode: bool = Option(False, "--decode", help="Read ids, write their text."),
    max: int | None = Option(None, "--max", metavar="N", min=1, help="Write the text's beginning, at most N tokens."),
    split: int | None = Option(None, "--split", metavar="N", min=1, help="Write pieces of at most N tokens."),
    special: bool = Option(False, "--special", help="With the tokens that the model puts around a text."),
    nul: bool = NUL,
) -> None:
    """Text to tokens and back: tokenize --count < FILE

    tokenize --max 4000 < FILE | toast "explain"

    tokenize --split 500 -0 < FILE | xargs -0 -n1 toast "summarise"
    """
    from toast import tokenize as verb

    forms = {"ids": ids, "count": count, "decode": decode, "max": max is not None, "split": split is not None}
    asked = [form for form, wanted in forms.items() if wanted]
    if len(asked) > 1:
        raise UsageError(f"--{asked[0]} and --{asked[1]} exclude each other")
    _need({"-0": nul}, "--split", there=split is not None)
    _need({"--special": special}, "--ids, --count or the form without options", there=not (decode or max or split))
    verb.run(call, model, asked[0] if asked else "tokens", limit=split or max or 0, special=special, nul=nul)
