"""`toast`: a question becomes an answer, streamed as it is made.

Owns where the answer's text goes. Does not know how tokens are computed (`generate.py`) or how
the question came together (`question.py`).
"""

from time import perf_counter

from toast import kernels, pipes
from toast.errors import Exit
from toast.filters import CodeBlock, LastNewline, Reasoning, Stops, begun
from toast.generation.engine import Engine
from toast.generation.generate import Generation, is_plain, read
from toast.generation.prompt_lookup import Drafter
from toast.question import fit, gather

WORTH_KEEPING = 0.5  # seconds of reading a prompt, over which its caches are written to disk
NO_CODE = "no code block in the answer"


class Request:
    """How to answer: what the options of `toast` say besides the question itself."""

    def __init__(self, engine: Engine, sampling: dict, limit=None, stops=(), code=False, prefill="",
                 template=True, long="error", json=False, logprobs=None, cache=True, session=None,
                 constraint=None):  # fmt: skip
        self.engine, self.sampling, self.limit = engine, sampling, limit
        self.stops, self.code, self.prefill, self.template, self.long = stops, code, prefill, template, long
        self.json, self.logprobs = json or logprobs is not None, logprobs
        self.cache, self.session, self.constraint = cache, session, constraint

    @property
    def top(self):
        """Alternatives that each token comes with; None: not even its own logprob is computed."""
        return (self.logprobs or 0) if self.json else None

    def may_draft(self, generation) -> bool:
        """Whether guesses cannot change the answer: greedy, rows invariant, caches that can be trimmed."""
        simple = generation.sampler.plain and self.top is None and self.constraint is None
        return simple and kernels.variant() != "off" and is_plain(generation.caches)

    def guide(self, limit: int):
        """What keeps an answer of at most `limit` tokens within the constraint; None without one."""
        return self.constraint.guide(limit) if self.constraint else None


class Answer:
    """Tokens become text: through stop strings, reasoning and, if asked, the first code block.

    `said` is what the model answered, `text` what of it is asked for: the same but for a code block.
    tell: hears the reasoning.
    """

    def __init__(self, request: Request, prompt: str, tell):
        engine = request.engine
        marks = None if request.constraint else engine.marks  # a constraint leaves no room to reason
        self.stream, self.stops = engine.detokenizer(), Stops(request.stops)
        self.filters = [self.stops, Reasoning(marks, tell, begun(prompt, marks))]
        self.code = CodeBlock() if request.code else None
        self.said = self.text = ""
        self._take(self._through(request.prefill))

    @property
    def over(self) -> bool:
        return self.stops.hit or (self.code is not None and self.code.done)

    @property
    def found(self) -> bool:
        """Whether there is what was asked for: with -x, a code block."""
        return self.code is None or bool(self.code.fence)

    def add(self, token) -> str:
        """The text that a token adds to the answer."""
        return self._take(self._through(self.stream.add(token.id)))

    def finish(self) -> str:
        rest = self._through(self.stream.finish())
        for i, filter in enumerate(self.filters):
            rest += self._through(filter.finish(), i + 1)
        return self._take(rest, last=True)

    def _take(self, said: str, last: bool = False) -> str:
        self.said += said
        new = self.code.add(said) if self.code else said
        if last and self.code:
            new += self.code.finish()
        self.text += new
        return new

    def _through(self, text: str, first=0) -> str:
        for filter in self.filters[first:]:
            text = filter.add(text)
        return text


def run(generation, last: int, answer: Answer, write) -> list:
    """Hand the answer's text to `write` as it is settled; its tokens. last: the prompt's last token."""
    tokens = []
    if answer.text:
        write(answer.text)
    for token in generation.run(last):
        tokens.append(token)
        if new := answer.add(token):
            write(new)
        if answer.over:
            generation.reason = "stop"
            break
    if rest := answer.finish():
        write(rest)
    return tokens


def _read(call, engine, caches, ids, prefix) -> float:
    """Put all but the last of the ids into the caches; the seconds that it took."""
    known = found = prefix.find(caches, ids) if prefix is not None else 0
    start = perf_counter()
    with pipes.progress(call, len(ids) - known, "token") as bar:
        pause = prefix.boundary(caches, ids) if prefix is not None else 0
        if pause > known:
            read(engine.model, caches, ids[known:pause], bar.update)
            prefix.mark(caches)
            known = pause
        read(engine.model, caches, ids[known:-1], bar.update)
    seconds = perf_counter() - start
    call.info(f"{pipes.plural(len(ids), 'token')} in the prompt, {found} known, read in {seconds:.2f} s")
    return seconds


def as_json(engine, answer, reason: str, prompt_tokens: int, tokens, logprobs: int | None) -> dict:
    """The answer as the object that --json writes."""
    spell = engine.tokenizer.core.decode
    found = {
        "text": answer.text.rstrip("\n"),
        "finish_reason": reason,
        "prompt_tokens": prompt_tokens,
        "tokens": len(tokens),
        "logprob": sum(t.logprob for t in tokens),
    }
    if logprobs is not None:

        def one(i, value):
            return {"token": spell([i], skip_special_tokens=False), "logprob": value}

        found["logprobs"] = [one(t.id, t.logprob) | {"top": [one(*pair) for pair in t.top]} for t in tokens]
    return found


def toast(call, request: Request, instruction: str, system: str, files: list[str]):
    """Answer what the arguments, the named files and standard input ask; the exit status."""
    engine = request.engine
    question = gather(call, engine, instruction, system, files, request.long)
    if request.session:
        question.history = request.session.read(question.system)
    prompt, ids = fit(call, engine, question, request.long, request.template, request.prefill)
    generation = _generation(request, ids)
    answer = Answer(request, prompt, lambda text: None if call.quiet else pipes.write_stderr(call.stderr, text))
    prefix = engine.prefix(call) if request.cache else None
    seconds, gone = _read(call, engine, generation.caches, ids, prefix), None
    try:
        _give(call, request, generation, ids, answer)
    except BrokenPipeError as error:  # the reader has what it wanted; what was made is kept all the same
        gone = error
    _remember(request.session, question, answer)
    status = None if gone else _status(call, request, generation, answer)
    if prefix is not None and seconds > WORTH_KEEPING:
        prefix.keep(generation.caches, (ids + generation.ids)[: len(ids) + generation.fed], len(ids))
    if gone:
        raise gone
    return status


def _generation(request: Request, ids) -> Generation:
    engine = request.engine
    limit = min(request.limit or engine.context, engine.context - len(ids))
    sampler = engine.sampler(request.sampling)
    sampler.begin(ids)
    guide = request.guide(limit)
    generation = Generation(engine.model, engine.caches(), sampler, engine.ends, limit, request.top, guide)
    if request.may_draft(generation):
        generation.drafter = Drafter(ids)
    return generation


def _give(call, request: Request, generation, ids, answer: Answer) -> None:
    """Write the answer, as it is made unless it is JSON or, under a constraint, all or nothing."""
    streamed, last, began = not request.json and generation.guide is None, LastNewline(), perf_counter()

    def write(text):
        if streamed and (text := last.add(text)):
            pipes.write_all(call.stdout, text.encode())

    tokens = run(generation, ids[-1], answer, write)
    rate = len(tokens) / max(perf_counter() - began, 1e-9)
    if generation.guide is not None:
        generation.guide.check()
    if request.json:
        found = as_json(request.engine, answer, generation.reason, len(ids), tokens, request.logprobs)
        pipes.write_all(call.stdout, pipes.json_line(found))
    elif answer.found:
        rest = "" if streamed else last.add(answer.text)
        pipes.write_all(call.stdout, (rest + last.finish()).encode())
    call.info(f"{pipes.plural(len(tokens), 'token')} in the answer, {rate:.0f} a second")


def _status(call, request: Request, generation, answer: Answer):
    """Exit.NONE for an answer without what was asked of it; tells of one that was cut short."""
    if generation.reason == "length":
        _stopped_short(call, request, generation.limit)
    if not answer.found:
        call.warn(NO_CODE)
        return Exit.NONE


def _remember(session, question, answer) -> None:
    if session:
        asked = question.messages()[len(question.history) :]
        session.add([*asked, {"role": "assistant", "content": answer.said.rstrip("\n")}])


def _stopped_short(call, request, limit) -> None:
    """Tell of an answer that its limit ended: loudly when nobody had asked for that limit."""
    call.outcome.was_cut = True
    say = call.info if limit == request.limit and not call.strict else call.warn
    say(f"the answer stopped at {pipes.plural(limit, 'token')}")
