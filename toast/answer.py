"""`toast`: a question becomes an answer, streamed as it is made.

Owns where the answer's text goes. Does not know how tokens are computed (`generate.py`) or how
the question came together (`question.py`).
"""

from time import perf_counter

from toast import kernels, pipes
from toast.draft import Drafter
from toast.engine import Engine
from toast.errors import Exit
from toast.filters import CodeBlock, LastNewline, Reasoning, Stops, begun
from toast.generate import Generation, read
from toast.prefix import is_plain
from toast.question import fit, gather

WORTH_KEEPING = 0.5  # seconds of reading a prompt, over which its caches are written to disk


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
    """

    def __init__(self, call, request: Request, prompt: str):
        engine = request.engine
        marks = None if request.constraint else engine.marks  # a constraint leaves no room to reason
        self.stream, self.stops = engine.detokenizer(), Stops(request.stops)
        self.filters = [self.stops, Reasoning(marks, self._think(call), begun(prompt, marks))]
        self.code = CodeBlock() if request.code else None
        self.said = self.text = ""
        self._take(self._through(request.prefill))

    def _think(self, call):
        return lambda text: None if call.quiet else pipes.murmur(call.stderr, text)

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


def run(call, engine: Engine, generation, ids: list[int], answer: Answer, write, prefix=None) -> list:
    """Read the prompt, then hand the answer's text to `write` as it is settled; its tokens.

    prefix: where to look for what was read before, and to keep what took long to read."""
    seconds = _read(call, engine, generation.caches, ids, prefix)
    tokens, began = [], perf_counter()
    if answer.text:
        write(answer.text)
    for token in generation.run(ids[-1]):
        tokens.append(token)
        if new := answer.add(token):
            write(new)
        if answer.over:
            generation.reason = "stop"
            break
    if rest := answer.finish():
        write(rest)
    rate = len(tokens) / max(perf_counter() - began, 1e-9)
    call.info(f"{pipes.plural(len(tokens), 'token')} in the answer, {rate:.0f} a second")
    if prefix is not None and seconds > WORTH_KEEPING:
        prefix.keep(generation.caches, (ids + generation.ids)[: len(ids) + generation.fed], len(ids))
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
        question.history = request.session.read()
    prompt, ids = fit(call, engine, question, request.long, request.template, request.prefill)
    limit = min(request.limit or engine.context, engine.context - len(ids))
    sampler = engine.sampler(request.sampling)
    sampler.begin(ids)
    guide = request.guide(limit)
    generation = Generation(engine.model, engine.caches(), sampler, engine.ends, limit, request.top, guide)
    if request.may_draft(generation):
        generation.drafter = Drafter(ids)
    answer, last = Answer(call, request, prompt), LastNewline()
    streamed = not request.json and guide is None  # under a constraint, everything or nothing

    def write(text):
        if streamed and (text := last.add(text)):
            pipes.write_all(call.stdout, text.encode())

    prefix = engine.prefix(call) if request.cache else None
    try:
        tokens = run(call, engine, generation, ids, answer, write, prefix)
        if guide is not None:
            guide.check()
        if request.json:
            found = as_json(engine, answer, generation.reason, len(ids), tokens, request.logprobs)
            pipes.write_all(call.stdout, pipes.json_line(found))
        elif answer.found:
            rest = "" if streamed else last.add(answer.text)
            pipes.write_all(call.stdout, (rest + last.finish()).encode())
    except BrokenPipeError:  # the reader has what it wanted; the conversation goes on from what was said
        _remember(request.session, question, answer)
        raise
    _remember(request.session, question, answer)
    if generation.reason == "length":
        _stopped_short(call, request, limit)
    if not answer.found:
        call.warn("no code block in the answer")
        return Exit.NONE


def _remember(session, question, answer) -> None:
    if session:
        asked = question.messages()[len(question.history) :]
        session.add([*asked, {"role": "assistant", "content": answer.said.rstrip("\n")}])


def _stopped_short(call, request, limit) -> None:
    """Tell of an answer that its limit ended: loudly when nobody had asked for that limit."""
    call.was_cut = True
    say = call.info if limit == request.limit and not call.strict else call.warn
    say(f"the answer stopped at {pipes.plural(limit, 'token')}")
