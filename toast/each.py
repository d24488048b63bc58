"""`toast --each`: every record is a question, every answer a line, in the order of the records.

Owns what becomes of records that fail. Does not know how rows share a batch (`batch_generate.py`).
"""

from __future__ import annotations

from toast import pipes
from toast.answer import NO_CODE, Answer, Request, as_json
from toast.errors import BadInput, ToastError
from toast.generation.batch_generate import Job, decode
from toast.generation.generate import Generation, has_kv_caches, prefill
from toast.question import fit, gather

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from toast.command import Call
    from toast.generation.engine import Engine
    from toast.generation.generate import Token
    from toast.question import Question
    from toast.records import Data, Record, Records


class Asked(Job):
    """The job of one record: `index` and `data` say which, `answer` collects its text. seed: added to the request's."""

    def __init__(
        self, call: Call, request: Request, question: Question, *,
        index: int, data: Data | None = None, seed: int = 0, what: str = "",
    ) -> None:  # fmt: skip
        _, _, ids = fit(call, request.engine, question, long=request.long, template=request.template,
                        prefill=request.prefill, what=what or f"record {index + 1}")  # fmt: skip
        self.index, self.data = index, data
        self.thoughts: list[str] = []
        self.answer = Answer(request, ids, self.thoughts.append)
        seeds = {"seed": (request.sampling.get("seed", 0) + seed) % (1 << 64)}  # the next one of the largest is 0
        sampler = request.engine.sampler(request.sampling | seeds)
        super().__init__(ids, sampler, request.sequence(ids), accept=self._accept, top=request.top)

    def _accept(self, token: Token) -> bool:
        self.answer.add(token)
        return self.answer.over


class Lines:
    """Answers go out in the order of their records, as soon as all before them are there."""

    def __init__(self, call: Call, request: Request, *, nul: bool, what: str = "record") -> None:
        self.call, self.request, self.nul, self.what = call, request, nul, what
        self.waiting: dict[int, bytes] = {}
        self.next = 0
        self.live = 0  # records whose answers are being made

    def answered(self, job: Asked) -> None:
        """Write what a job that is over has said."""
        self.live -= 1
        job.tokens = job.tokens[: job.sequence.kept]
        job.answer.close(job.tokens, looped=job.sequence.reason == "loop")
        if job.thoughts:
            self.call.warn(f"{self.what} {job.index + 1}: {''.join(job.thoughts).rstrip()}")
        if job.answer.unbegun and job.sequence.reason == "length" and self.request.constraint is None:
            from toast.generation import reasoning

            self.call.warn(f"{self.what} {job.index + 1}: {reasoning.ended(job.sequence.limit)}")
        try:
            if job.sequence.guide is not None:
                job.sequence.guide.check()
            if not job.answer.found:
                raise BadInput(NO_CODE)
        except ToastError as error:
            self.failed(job.index, job.data, error)
            return
        if self.request.json:
            found = as_json(self.request, job.answer.text, job.sequence.reason, prompt=len(job.ids), tokens=job.tokens)
            self._put(job.index, _object(job.index, job.data, found))
        else:
            self._put(job.index, self._line(job.answer.text))

    def empty(self, index: int, data: Data | None) -> None:
        """A record without text has an answer without text."""
        found = as_json(self.request, "", "stop", prompt=0, tokens=[])
        self._put(index, _object(index, data, found) if self.request.json else self._line(""))

    def failed(self, index: int, data: Data | None, error: ToastError) -> None:
        """Tell of a record that cannot be answered; its place stays empty."""
        self.call.error(f"{self.what} {index + 1}: {error}")
        told = {"error": str(error)}
        self._put(index, _object(index, data, told) if self.request.json else self._line(""))

    def _line(self, text: str) -> bytes:
        if self.nul:
            return text.rstrip("\n").encode() + b"\0"
        return " ".join(text.splitlines()).strip().encode() + b"\n"

    def _put(self, index: int, line: bytes) -> None:
        self.waiting[index] = line
        ready = []
        while self.next in self.waiting:
            ready.append(self.waiting.pop(self.next))
            self.next += 1
        if ready:
            pipes.write_answer(self.call, b"".join(ready))


def _object(index: int, data: Data | None, found: dict[str, Any]) -> bytes:
    """A line of JSON: the fields of the record and what was found. Where the answer takes the place of a `text`, that
    stays as `input`, or under the next name that is free: a chain of commands loses none of its answers."""
    fields = dict(data or {})
    if "text" in fields and "text" in found:
        names = ["input", *(f"input{n}" for n in range(2, len(fields) + 1))]
        fields[next(name for name in names if name not in fields)] = fields.pop("text")
    return pipes.json_line({**fields, "index": index, **found})


def answer_each(call: Call, request: Request, records: Records) -> None:
    """Answer every record; a record that cannot be answered is told of and makes the status 2."""
    common = gather(call, request.engine, request.instruction, system=request.system, files=request.files,
                    long=request.long, each=True)  # fmt: skip
    lines = Lines(call, request, nul=records.nul)
    _answer(call, request, lines=lines, jobs=_jobs(call, request, common, lines=lines, records=records))


def answer_samples(call: Call, request: Request, count: int, *, nul: bool) -> None:
    """Answer one question `count` times, each with a seed of its own."""
    question = gather(call, request.engine, request.instruction, system=request.system, files=request.files,
                      long=request.long)  # fmt: skip
    lines = Lines(call, request, nul=nul, what="answer")
    lines.live = count
    jobs = [Asked(call, request, question, index=n, seed=n, what="standard input") for n in range(count)]
    if count > 1 and jobs[0].sampler.temperature <= 0:
        call.warn("at temperature 0 all answers are alike (-t 0.8 draws them)")
    _answer(call, request, lines=lines, jobs=jobs)


def _answer(call: Call, request: Request, *, lines: Lines, jobs: Iterable[Asked | None]) -> None:
    short = unasked = looped = 0
    with pipes.progress(call) as bar:
        for job in _run(request.engine, jobs):
            lines.answered(job)
            short += job.sequence.reason == "length"
            unasked += job.sequence.reason == "length" and not (
                job.answer.unbegun or job.sequence.limit == request.limit
            )
            looped += job.sequence.reason == "loop"
            bar.update()
    if looped:
        call.cut(
            f"{pipes.plural(looped, 'answer')} ended where only repetition followed (--no-loop-stop lets it go on)"
        )
    if short:
        call.outcome.was_cut = True
        say = call.warn if unasked or call.strict else call.info
        say(f"{pipes.plural(short, 'answer')} stopped at the token limit")


def _jobs(call: Call, request: Request, common: Question, *, lines: Lines, records: Records) -> Iterator[Asked | None]:
    """The records' jobs as they come in; None while there is no further one and others are being answered."""
    index = 0
    for record in records.arriving(lambda: lines.live > 0):
        if record is None:
            yield None
            continue
        if not record.error and not record.text.strip():
            lines.empty(index, record.data)
            index += 1
            continue
        try:
            job = _asked(call, request, common, index=index, record=record)
        except ToastError as error:
            lines.failed(index, record.data, error)
        else:
            lines.live += 1
            yield job
        index += 1


def _asked(call: Call, request: Request, common: Question, *, index: int, record: Record) -> Asked:
    if record.error:
        raise record.error
    question = common.about(record.text)
    if not question.messages()[-1]["content"]:
        raise BadInput("nothing to answer")
    return Asked(call, request, question, index=index, data=record.data)


def batches(model: Any, caches: list[Any]) -> bool:
    """Whether a model can be asked with caches beside others of other lengths."""
    # layers without a cache read another's, in ways of their own
    return has_kv_caches(caches) and len(caches) == len(model.layers) and not getattr(model, "one_by_one", False)


def _run(engine: Engine, jobs: Iterable[Asked | None]) -> Iterator[Asked]:
    """Jobs as they are over: in batches where the model's caches allow it, else one by one."""
    model, name = engine.language.model, engine.name
    if batches(model, engine.caches()):
        yield from decode(model, engine.caches, jobs, name=name)
        return
    for job in filter(None, jobs):
        caches = engine.caches()
        prefill(model, caches, job.ids[:-1])
        alone = Generation(model, caches, job.sampler, sequence=job.sequence, top=job.top, name=name)
        for token in alone.run(job.ids[-1]):
            job.keep(token)
        yield job
