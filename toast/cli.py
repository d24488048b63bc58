"""The commands of this package: declarations, and the verb each one calls."""

from toast import start  # noqa: F401, I001  before anything that takes time
from toast.command import Call, Command, Group, command
from toast.errors import UsageError
from toast.options import FIELD, JSONL, NUL, Argument, Option, need_with, refuse_with
from toast.pipes import clean
from toast.records import Records

MODEL = Option(
    "smollm2", "-m", "--model", env="TOAST_MODEL", metavar="MODEL", group="Model",
    help="A name, a folder, a .gguf file, org/name or ollama:name.",
)  # fmt: skip


@command
def toast(
    call: Call,
    instruction: str = Argument(
        "",
        metavar="INSTRUCTION",
        help="What to do with standard input, or a question; @FILE holds it, {{input}} in that file is where standard input goes.",
    ),
    operands: list[str] = Argument(
        [],
        metavar="FILE",
        help="Files to read, under their names, beside standard input (in a loop: --no-input); with --each, the records.",
    ),
    model: str = MODEL,
    adapter: str | None = Option(
        None, "--adapter", metavar="FOLDER", help="A LoRA adapter of the model, MLX-LM's or PEFT's; -m takes one, too."
    ),
    kv_bits: str | None = Option(
        None, "--kv-bits", choices=("8", "4"), help="Keep what was read in fewer bits, for long contexts."
    ),
    no_cache: bool = Option(False, "--no-cache", help="Neither look for nor keep what was read of a prompt."),
    files: list[str] = Option(
        [], "-f", "--file", metavar="FILE", help="A file to read, under its name.", group="Question"
    ),
    system: str = Option("", "-s", "--system", metavar="TEXT|@FILE", help="System prompt."),
    session: str | None = Option(None, "--session", metavar="NAME", help="Go on with the conversation of this name."),
    forget: bool = Option(False, "--forget", help="With --session: forget what was said; an INSTRUCTION begins anew."),
    think: str | None = Option(
        None, "--think", metavar="on|off|N", help="Whether to reason before the answer; N: in so many tokens at most."
    ),
    template: list[str] = Option(
        [], "--template", metavar="KEY=VALUE", help="A variable of the chat template, as JSON or text."
    ),
    no_template: bool = Option(False, "--no-template", help="Give the text as it is, without chat template."),
    long: str = Option(
        "error",
        "--long",
        choices=("error", "truncate"),
        help="What becomes of a prompt over the model's context; truncate cuts the middle of the longest of standard input and FILEs.",
    ),
    dry_run: bool = Option(False, "--dry-run", help="Only write the prompt and tell of its tokens; loads no weights."),
    max_tokens: int | None = Option(
        None,
        "-n",
        "--max-tokens",
        metavar="N",
        min=1,
        help="Tokens of the answer, at most; that it was cut there, -v and --strict tell.",
        group="Answer",
        without="what the context holds",
    ),
    prefill: str = Option("", "--prefill", metavar="TEXT", help="How the answer begins."),
    stop: list[str] = Option([], "--stop", metavar="TEXT", help="End the answer before this text."),
    code: bool = Option(False, "-x", "--extract", help="Print only the first fenced code block."),
    json: bool = Option(
        False,
        "--json",
        help='Write {"text", "finish_reason", "prompt_tokens", "tokens", "logprob"}; with --jsonl, a record\'s own "text" is kept as "input" (or "input2", ... where that is taken).',
    ),
    logprobs: int | None = Option(
        None, "--logprobs", metavar="K", min=0, help="Implies --json: each token with its logprob and K alternatives."
    ),
    samples: int | None = Option(
        None,
        "--samples",
        metavar="K",
        min=1,
        without="1",
        help="K answers, a line each, with seeds from --seed on; over temperature 0 they differ.",
    ),
    repeat_input: bool = Option(
        False, "--repeat-input", help="Write standard input as it came, then the answer, as editors' filters want it."
    ),
    no_loop_stop: bool = Option(False, "--no-loop-stop", help="Let an answer go on that only repeats itself."),
    schema: str | None = Option(
        None,
        "--schema",
        metavar="FILE|JSON",
        help="The answer is JSON that is valid by this schema; an object has the properties that are named and no others, unless additionalProperties is there, or objects are put together (allOf, oneOf).",
        group="Form of the answer",
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
    temperature: float | None = Option(
        None,
        "-t",
        "--temperature",
        metavar="T",
        min=0,
        group="Sampling",
        without="as the model's files say",
        help="0: always the likeliest token; over 0: drawn, the higher the freer.",
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
        help="Over 0: a token that would repeat the answer loses X, and more the longer it repeats; not in constraints.",
    ),
    seed: int = Option(0, "--seed", metavar="N", min=0, max=(1 << 64) - 1, help="Another seed, another draw."),
    each: bool = Option(
        False,
        "--each",
        help="Every record of FILEs, else of standard input, is a question, every answer a line; of a blank or bad one an empty line, and bad ones are told, with status 2 at the end.",
        group="Records",
    ),
    nul: bool = NUL,
    jsonl: bool = JSONL,
    field: str | None = FIELD,
) -> int | None:
    """Text in, an instruction, text out.

    Standard input, if there is any, is what the instruction is about. The answer is written as it comes.

    The default model is small: it fills in forms and knows little. -m takes a larger one.

    $ toast --schema form.json < mail.txt
    $ toast --each --choice positive,negative "positive or negative?" < reviews.txt
    $ toast "what is the capital of France?"
    $ toast -m org/name "what differs?" a.py b.py
    $ git diff | toast -m org/name --strict "a commit message" > message

    Status 1: With -x: no code block in the answer.
    """
    from toast import question
    from toast.session import Session

    # 1) what the options exclude
    alone = not (operands or files or system or session)
    question.check_operands(call, instruction, operands, alone=alone, each=each)
    need_with("--each", {"--jsonl": jsonl, "--field": field}, there=each)
    need_with("--each or --samples", {"-0": nul}, there=each or samples is not None)
    need_with("--session", {"--forget": forget}, there=session is not None)
    if "" in stop:
        raise UsageError("--stop needs a text: an empty one is everywhere")
    talk = Session(call, session) if session is not None else None
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
    if dry_run:
        refuse_with("--dry-run", {"--forget": forget})
    records = Records(call, operands, nul=nul, jsonl=jsonl, field=field, soft=True) if each else None
    if talk and forget:
        talk.forget()
        if not instruction:
            return None
    if "MLX_RANK" in call.env:
        from toast.generation import distributed

        refuse_with("mlx.launch", {"--session": session, "--each": each, "--adapter": adapter, "--kv-bits": kv_bits})
        call, no_cache = distributed.part(call), True
    # 2) what is asked of which model
    from toast.answer import Request
    from toast.answer import dry_run as show_prompt
    from toast.answer import toast as answer
    from toast.generation.engine import Engine
    from toast.generation.prompt import Think, variables

    sampling = {"temperature": temperature, "top_p": top_p, "top_k": top_k, "min_p": min_p,
                "repeat_penalty": repeat_penalty, "dry": dry, "seed": seed}  # fmt: skip
    engine = Engine(
        call, model, weights=not dry_run, think=Think.of(think), variables=variables(template),
        adapter=adapter, kv_bits=int(kv_bits) if kv_bits else None,
    )  # fmt: skip
    request = Request(
        engine, instruction=instruction, system=system, files=files if each else [*operands, *files],
        sampling=sampling, limit=max_tokens,
        stops=[*map(clean, stop)], code=code, prefill=clean(prefill), template=not no_template, long=long, json=json,
        logprobs=logprobs, cache=not no_cache, loop_stop=not no_loop_stop, session=talk,
        constraint=engine.constraint(*rule) if rule else None, repeat_input=repeat_input,
    )  # fmt: skip
    # 3) one answer, or one for each record
    if dry_run:
        show_prompt(call, request)
        return None
    if not (records or samples):
        return answer(call, request)
    from toast.each import answer_each, answer_samples

    if records:
        answer_each(call, request, records)
    else:
        answer_samples(call, request, samples or 1, nul=nul)
    return None


@command
def tokenize(
    call: Call,
    files: list[str] = Argument(
        [], metavar="FILE", help="Text to read, one after the other; standard input when none is given."
    ),
    model: str = MODEL,
    ids: bool = Option(False, "--ids", help="Write token ids only, one a line.", group="Form"),
    count: bool = Option(
        False, "--count", help="Write the number of tokens; of several FILEs COUNT<TAB>FILE, and a total."
    ),
    decode: bool = Option(False, "--decode", help="Read ids, write their text."),
    max: int | None = Option(None, "--max", metavar="N", min=1, help="Write the text's beginning, at most N tokens."),
    split: int | None = Option(None, "--split", metavar="N", min=1, help="Write pieces of at most N tokens."),
    special: bool = Option(False, "--special", help="With the tokens that the model puts around a text."),
    nul: bool = Option(False, "-0", "--null", help="With --split: pieces end in NUL instead of a line break."),
) -> None:
    """Text to tokens and back.

    Without options: a JSON object for each token, {"id", "text", "start", "stop"}.

    $ tokenize --count notes.md
    $ tokenize --max 4000 < notes.md | toast -m org/name "explain"
    $ tokenize --split 500 -0 < notes.md | toast -m org/name --each -0 "summarise"
    """
    from toast import tokenize as verb

    forms = {"ids": ids, "count": count, "decode": decode, "max": max is not None, "split": split is not None}
    asked = [form for form, wanted in forms.items() if wanted]
    if len(asked) > 1:
        raise UsageError(f"--{asked[0]} and --{asked[1]} exclude each other")
    need_with("--split", {"-0": nul}, there=split is not None)
    plain = not (decode or max or split)
    need_with("--ids, --count or the form without options", {"--special": special}, there=plain)
    form = asked[0] if asked else "tokens"
    verb.run(call, model, form, files=files, limit=split or max or 0, special=special, nul=nul)


# ---------------------------------------------------------------- toasted


def toasted_status(call: Call, json: bool = Option(False, "--json", help="Write a JSON object.")) -> int:
    """Say what the warm process has loaded, its memory, and how often it was used.

    Status 1: There is none."""
    from toast.warm import control

    return control.status(call, json=json)


def toasted_stop(call: Call) -> None:
    """Let the warm process finish what it is at, and leave; status 0 also where there is none."""
    from toast.warm import control

    control.stop(call)


def toasted_run(
    call: Call,
    idle: str | None = Option(
        None, "--idle", metavar="TIME", help="Leave when nobody has asked for so long.", without="10m"
    ),
) -> None:
    """Be the warm process, in the foreground: for launchd and systemd; where there is one already, leave with 0."""
    from toast.warm import control

    control.run(call, idle)


toasted = Group(
    "toasted",
    """The warm process, a cache of loaded models.

    Any command starts it (-p toasted, --warm 10m) and uses it.

    $ toasted status

    Status 1: `toasted status`: no process runs.
    """,
    [
        Command(function, function.__name__.replace("_", " "))
        for function in (toasted_status, toasted_stop, toasted_run)
    ],
)
