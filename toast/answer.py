"""`toast`: a question becomes an answer, streamed as it is made.

Owns where the answer's text goes. Does not know how tokens are computed (`generate.py`) or how
the question came together (`question.py`).
"""

from __future__ import annotations

from time import perf_counter

import mlx.core as mx

from toast import kept, kernels, pipes
from toast.errors import Exit
from toast.filters import CodeBlock, LastNewline, Reasoning, Stops
from toast.generation import device, last_row
from toast.generation.generate import Generation, Sequence, begun, can_trim, prefill
from toast.generation.prompt_lookup import Drafter
from toast.question import fit, gather

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from toast.command import Call
    from toast.generation.constrain import Constraint
    from toast.generation.engine import Engine
    from toast.generation.generate import Token
    from toast.generation.prefix_cache import PrefixCache
    from toast.question import Question
    from toast.session import Session

PATIENCE = 8  # tokens that may repeat on a terminal before it waits for what comes of them
WORTH_KEEPING = 0.5  # seconds of reading a prompt, over which its caches are written to disk
NO_CODE = "no code block in the answer"
LOOPED = "the answer only repeated itself and was ended (--no-loop-stop lets it go on)"


class Request:
    """What is asked, and how to answer it: what the options of `toast` say.

    limit: tokens of an answer, None: as many as the context holds. stops: texts that end it. code: only its first
    code block. prefill: how it begins. loop_stop: end it where it only repeats itself. repeat_input: write standard
    input before it. json, logprobs: write an object, with so many alternatives to each token.
    """

    def __init__(
        self, engine: Engine, *,
        instruction: str = "", system: str = "", files: list[str] | None = None,
        sampling: dict[str, Any] | None = None, limit: int | None = None, stops: list[str] | None = None,
        code: bool = False, prefill: str = "", template: bool = True, long: str = "error",
        json: bool = False, logprobs: int | None = None, cache: bool = True,
        session: Session | None = None, constraint: Constraint | None = None,
        loop_stop: bool = True, repeat_input: bool = False,
    ) -> None:  # fmt: skip
        self.engine, self.sampling, self.limit = engine, sampling or {}, limit
        self.instruction, self.system, self.files = instruction, system, files or []
        self.stops, self.code, self.prefill = stops or [], code, prefill
        self.template, self.long = template, long
        self.json, self.logprobs = json or logprobs is not None, logprobs
        self.repeat_input = repeat_input
        self.cache, self.session, self.constraint, self.loop_stop = cache, session, constraint, loop_stop

    @property
    def top(self) -> int | None:
        """Alternatives that each token comes with; None: not even its own logprob is computed."""
        return (self.logprobs or 0) if self.json else None

    def may_draft(self, generation: Generation) -> bool:
        """Whether drafts cannot change the answer: greedy, rows invariant, caches that can be trimmed."""
        simple = generation.sampler.is_greedy and self.top is None and generation.sequence.guide is None
        return simple and kernels.variant() != "off" and can_trim(generation.caches)

    def sequence(self, prompt: list[int]) -> Sequence:
        """An answer that begins after the ids of a prompt: its ends, its limit and its constraint."""
        engine = self.engine
        limit = min(self.limit or engine.context, engine.context - len(prompt))
        guide = engine.guide(prompt, limit, self.constraint)
        return Sequence(engine.ends, limit, guide, loop_stop=self.loop_stop)


class Answer:
    """Tokens become text: through stop strings, reasoning and, if asked, the first code block.

    `said` is what the model answered, `text` what of it is asked for: the same but for a code block.
    """

    def __init__(self, request: Request, prompt: list[int], on_reasoning: Callable[[str], object]) -> None:
        self.request, self.inside = request, request.engine.is_reasoning(prompt)
        self._begin(on_reasoning)

    def _begin(self, on_reasoning: Callable[[str], object]) -> None:
        request, once = self.request, self.request.constraint is not None
        self.stream, self.stops = request.engine.detokenizer(), Stops(request.stops)
        self.reasoning = Reasoning(request.engine.marks, on_reasoning, inside=self.inside, once=once)
        self.filters: list[Any] = [self.stops, self.reasoning]
        self.unmarked = once and not self.inside  # nothing has come of which a mark may be the beginning
        self.code = CodeBlock() if request.code else None
        self.said = self.text = ""
        self._accept(self.stops.add(request.prefill))  # it is the answer, whatever it looks like

    @property
    def over(self) -> bool:
        return self.stops.hit or (self.code is not None and self.code.done)

    @property
    def found(self) -> bool:
        """Whether there is what was asked for: with -x, a code block."""
        return self.code is None or bool(self.code.fence)

    @property
    def unbegun(self) -> bool:
        """Whether the reasoning did not come to its end."""
        return self.reasoning.inside

    def add(self, token: Token) -> str:
        """The text that a token adds to the answer."""
        if self.unmarked and not self.request.engine.begins_mark(token.id):
            self.reasoning.marks = None  # a constraint's text may spell marks
        self.unmarked = False
        return self._accept(self._through(self.stream.add(token.id)))

    def close(self, tokens: list[Token], *, looped: bool) -> None:
        """The answer is over; these are its tokens, fewer than were added where it had begun to repeat itself."""
        if looped:
            self._begin(lambda text: None)
            for token in tokens:
                self.add(token)
        self.finish()

    def finish(self) -> str:
        """The text that was held to the end."""
        rest = self._through(self.stream.finish())
        for i, filter in enumerate(self.filters):
            rest += self._through(filter.finish(), i + 1)
        return self._accept(rest, last=True)

    def _accept(self, said: str, *, last: bool = False) -> str:
        self.said += said
        new = self.code.add(said) if self.code else said
        if last and self.code:
            new += self.code.finish()
        self.text += new
        return new

    def _through(self, text: str, first: int = 0) -> str:
        for filter in self.filters[first:]:
            text = filter.add(text)
        return text


class Streamed:
    """An answer's text on its way to `write`, but for what may turn out to be a mere repetition of itself.

    patience: tokens that may repeat before their text is held back."""

    def __init__(self, answer: Answer, sequence: Sequence, *, write: Callable[[str], object], patience: int) -> None:
        self.answer, self.sequence, self.write, self.patience = answer, sequence, write, patience
        self.ends = [len(answer.text)]  # of the text before the first token and after each one
        self.done = 0

    def add(self, token: Token) -> None:
        """Take a token, write what is settled."""
        self.answer.add(token)
        self.ends.append(len(self.answer.text))
        repeated = self.sequence.repetition.repeated if self.sequence.loop_stop else 0
        settled = len(self.sequence.ids) - (repeated if repeated >= self.patience else 0)
        self.put(self.ends[min(settled, len(self.ends) - 1)])  # the sequence is ahead where a draft was right

    def put(self, end: int) -> None:
        """Write the text up to there."""
        if end > self.done:
            self.write(self.answer.text[self.done : end])
            self.done = end


def run(generation: Generation, last: int, answer: Answer, *, streamed: Streamed, bar: Any) -> list[Token]:
    """Hand the answer's text on as it is settled; its tokens. last: the prompt's last token. bar: counts them."""
    tokens = []
    streamed.put(len(answer.text))
    for token in generation.run(last):
        tokens.append(token)
        streamed.add(token)
        bar.update()
        if answer.over:
            generation.sequence.stop()
            break
    tokens = tokens[: generation.sequence.kept]
    answer.close(tokens, looped=generation.sequence.reason == "loop")
    streamed.put(len(answer.text))
    return tokens


def _read(call: Call, request: Request, generation: Generation, *, ids: list[int], prefix: PrefixCache | None) -> float:
    """Put the ids into the caches, the last one perhaps left to the generation; the seconds that it took."""
    model, caches, language = generation.model, generation.caches, request.engine.language

    def new() -> list[Any]:
        return begun(language.model, language.caches())

    known = found = prefix.find(caches, ids, like=new) if prefix is not None else 0
    start = perf_counter()
    with pipes.progress(call, len(ids) - known, "token") as bar:
        for pause in prefix.boundaries(caches, ids) if prefix is not None else ():
            if prefix is not None and pause > known:
                prefill(model, caches, ids[known:pause], watch=bar.update)
                prefix.mark(caches, pause)
                known = pause
        piece = device.piece()
        end = max(known, (len(ids) - known - 1) // piece * piece + known)
        prefill(model, caches, ids[known:end], watch=bar.update)
        _read_end(generation, ids[end:])
        bar.update(len(ids) - end)
    seconds = perf_counter() - start
    call.info(f"{pipes.plural(len(ids), 'token')} in the prompt, {found} known, read in {seconds:.2f} s")
    return seconds


def _read_end(generation: Generation, ids: list[int]) -> None:
    """Put the last ids of a prompt into the caches: all, or all but the last where that one has to be apart."""
    generation.first = last_row.logits(generation.model, generation.caches, ids)
    if generation.first is None:
        prefill(generation.model, generation.caches, ids[:-1])
    else:
        mx.eval(generation.first)


def as_json(request: Request, text: str, reason: str | None, *, prompt: int, tokens: list[Token]) -> dict[str, Any]:
    """An answer as the object that --json writes; prompt: its tokens."""
    spell = request.engine.tokenizer.core.decode
    found: dict[str, Any] = {
        "text": text.rstrip("\n"),
        "finish_reason": reason,
        "prompt_tokens": prompt,
        "tokens": len(tokens),
        "logprob": sum((t.logprob for t in tokens), 0.0),
    }
    if request.logprobs is not None:

        def one(i: int, value: float) -> dict[str, Any]:
            return {"token": spell([i], skip_special_tokens=False), "logprob": value}

        found["logprobs"] = [one(t.id, t.logprob) | {"top": [one(*pair) for pair in t.top]} for t in tokens]
    return found


def toast(call: Call, request: Request) -> int | None:
    """Answer what the request and standard input ask; the exit status."""
    question, _, ids = asked(call, request)
    generation = _generation(request, ids)
    try:
        return _answer(call, request, question, ids=ids, generation=generation)
    finally:
        generation.leave()


def _answer(
    call: Call, request: Request, question: Question, *, ids: list[int], generation: Generation
) -> int | None:  # fmt: skip
    answer = Answer(request, ids, lambda text: None if call.quiet else pipes.write_stderr(call.stderr, text))
    prefix = request.engine.prefix() if request.cache else None
    seconds, gone = _read(call, request, generation, ids=ids, prefix=prefix), None
    if request.repeat_input and question.raw:
        pipes.write_answer(call, question.raw + b"\n" * (not question.raw.endswith(b"\n")))
    try:
        _give(call, request, generation, ids=ids, answer=answer)
    except BrokenPipeError as error:  # the reader has what it wanted; what was made is kept all the same
        gone = error
    _remember(request.session, question, answer)
    status = None if gone else _status(call, request, generation, answer=answer)
    if prefix is not None and (seconds > WORTH_KEEPING or kept.memory is not None):
        read = ids + generation.sequence.ids
        known = read[: len(ids) + generation.fed]
        prefix.keep(generation.caches, known, len(ids), write=seconds > WORTH_KEEPING)
    if gone:
        raise gone
    return status


def asked(call: Call, request: Request) -> tuple[Question, str, list[int]]:
    """The question, the text that the model reads of it, and its ids."""
    question = gather(call, request.engine, request.instruction, system=request.system, files=request.files,
                      long=request.long)  # fmt: skip
    if request.session:
        question.history = request.session.read(question.system)
    return fit(call, request.engine, question, long=request.long, template=request.template,
               prefill=request.prefill)  # fmt: skip


def dry_run(call: Call, request: Request) -> None:
    """Write the prompt, and tell of its length; or both as JSON."""
    _, prompt, ids = asked(call, request)
    if request.json:
        pipes.write_answer(call, pipes.json_line({"prompt": prompt, "tokens": len(ids)}))
        return
    pipes.write_answer(call, f"{prompt}\n".encode())
    call.warn(f"{pipes.plural(len(ids), 'token')} in the prompt")


def _generation(request: Request, ids: list[int]) -> Generation:
    engine = request.engine
    sampler, caches = engine.sampler(request.sampling), engine.caches()
    sequence = request.sequence(ids)
    sampler.begin(ids, sequence)
    generation = Generation(
        engine.language.seat(caches), caches, sampler, sequence=sequence, top=request.top, name=engine.name
    )
    if request.may_draft(generation):
        generation.drafter = Drafter(ids)
    return generation


def _give(call: Call, request: Request, generation: Generation, *, ids: list[int], answer: Answer) -> None:
    """Write the answer, as it is made unless it is JSON or, under a constraint, all or nothing."""
    guide, writer, free = generation.sequence.guide, pipes.LineWriter(call), request.constraint is None
    at_once, last, began = not request.json and free, LastNewline(), perf_counter()

    def write(text: str) -> None:
        if at_once and (text := last.add(text)):
            writer.write(text)

    patience = PATIENCE if writer.at_once else 1
    streamed = Streamed(answer, generation.sequence, write=write, patience=patience)
    with pipes.NoProgress() if at_once else pipes.progress(call, None, "token") as bar:
        tokens = run(generation, ids[-1], answer, streamed=streamed, bar=bar)
    rate = len(generation.sequence.ids) / max(perf_counter() - began, 1e-9)
    if guide is not None:
        guide.check()
    if request.json:
        found = as_json(request, answer.text, generation.sequence.reason, prompt=len(ids), tokens=tokens)
        pipes.write_answer(call, pipes.json_line(found))
    elif answer.found:
        writer.write(("" if at_once else last.add(answer.text)) + last.finish())
        writer.close()
    call.info(f"{pipes.plural(len(tokens), 'token')} in the answer, {rate:.0f} a second")


def _status(call: Call, request: Request, generation: Generation, *, answer: Answer) -> int | None:
    """Exit.NONE for an answer without what was asked of it; tells of one that was cut short."""
    if generation.sequence.reason == "length":
        _stopped_short(call, request, answer, limit=generation.sequence.limit)
    elif generation.sequence.reason == "loop":
        call.cut(LOOPED)
    if answer.found:
        return None
    call.warn(NO_CODE)
    return Exit.NONE


def _remember(session: Session | None, question: Question, answer: Answer) -> None:
    if session:
        asked = question.messages()[len(question.history) :]
        session.add([*asked, {"role": "assistant", "content": answer.said.rstrip("\n")}])


def _stopped_short(call: Call, request: Request, answer: Answer, *, limit: int) -> None:
    """Tell of an answer that its limit ended: loudly when nobody had asked for that limit, or it has not begun."""
    if answer.unbegun:
        from toast.generation import reasoning

        call.cut(reasoning.ended(limit))
        return
    call.outcome.was_cut = True
    say = call.info if limit == request.limit and not call.strict else call.warn
    say(f"the answer stopped at {pipes.plural(limit, 'token')}")
