"""`toast --each`: every record is a question, every answer a line, in the order of the records.

Owns what becomes of records that fail. Does not know how rows share a batch (`batch.py`).
"""

from toast import pipes
from toast.answer import NO_CODE, Answer, Request, as_json
from toast.errors import BadInput, ToastError
from toast.generation.batch_generate import Job, decode
from toast.generation.generate import Generation, is_plain, read
from toast.question import fit, gather


class Asked(Job):
    """The job of one record: `index` and `record` say which, `answer` collects its text."""

    def __init__(self, call, request: Request, question, index: int, record):
        engine = request.engine
        name = f"record {index + 1}"
        prompt, ids = fit(call, engine, question, request.long, request.template, request.prefill, name)
        self.index, self.record, self.thoughts = index, record, []
        self.answer = Answer(request, prompt, self.thoughts.append)
        limit, sampler = (
            min(request.limit or engine.context, engine.context - len(ids)),
            engine.sampler(request.sampling),
        )
        super().__init__(ids, sampler, engine.ends, limit, self._take, request.top, request.guide(limit))

    def _take(self, token) -> bool:
        self.answer.add(token)
        return self.answer.over


class Lines:
    """Answers go out in the order of their records, as soon as all before them are there."""

    def __init__(self, call, request: Request, records):
        self.call, self.request, self.records = call, request, records
        self.waiting, self.next = {}, 0
        self.live = 0  # records whose answers are being made

    def answered(self, job: Asked) -> None:
        self.live -= 1
        job.answer.finish()
        if job.thoughts:
            self.call.warn(f"record {job.index + 1}: {''.join(job.thoughts)}")
        try:
            if job.guide is not None:
                job.guide.check()
            if not job.answer.found:
                raise BadInput(NO_CODE)
        except ToastError as error:
            return self.failed(job.index, job.record, error)
        if self.request.json:
            found = as_json(
                self.request.engine, job.answer, job.reason, len(job.ids), job.tokens, self.request.logprobs
            )
            self._put(job.index, pipes.json_line({**(job.record.data or {}), "index": job.index, **found}))
        else:
            self._put(job.index, self._line(job.answer.text))

    def failed(self, index: int, record, error: ToastError) -> None:
        self.call.error(f"record {index + 1}: {error}")
        told = {**(record.data or {}), "index": index, "error": str(error)}
        self._put(index, pipes.json_line(told) if self.request.json else self._line(""))

    def _line(self, text: str) -> bytes:
        if self.records.nul:
            return text.rstrip("\n").encode() + b"\0"
        return " ".join(text.splitlines()).strip().encode() + b"\n"

    def _put(self, index: int, line: bytes) -> None:
        self.waiting[index] = line
        ready = []
        while self.next in self.waiting:
            ready.append(self.waiting.pop(self.next))
            self.next += 1
        if ready:
            pipes.write_all(self.call.stdout, b"".join(ready))


def answer_each(call, request: Request, records, instruction: str, system: str, files: list[str]) -> None:
    """Answer every record; a record that cannot be answered is told of and makes the status 2."""
    common = gather(call, request.engine, instruction, system, files, request.long, each=True)
    lines, short = Lines(call, request, records), 0
    with pipes.progress(call) as bar:
        for job in _run(request.engine, _jobs(call, request, records, common, lines)):
            lines.answered(job)
            short += job.reason == "length"
            bar.update()
    if short:
        call.outcome.was_cut = True
        call.info(f"{pipes.plural(short, 'answer')} stopped at the token limit")


def _jobs(call, request, records, common, lines):
    """The records' jobs as they come in; None while there is no further one and others are being answered."""
    index = 0
    for record in records.arriving(lambda: lines.live > 0):
        if record is None:
            yield None
            continue
        try:
            job = _asked(call, request, record, common, index)
        except ToastError as error:
            lines.failed(index, record, error)
        else:
            lines.live += 1
            yield job
        index += 1


def _asked(call, request, record, common, index) -> Asked:
    if record.error:
        raise record.error
    question = common.about(record.text)
    if not question.messages()[-1]["content"]:
        raise BadInput("nothing to answer")
    return Asked(call, request, question, index, record)


def _run(engine, jobs):
    """Jobs as they are over: in batches where the model's caches allow it, else one by one."""
    if is_plain(engine.caches()):
        yield from decode(engine.model, engine.caches, jobs)
        return
    for job in jobs:
        caches = engine.caches()
        read(engine.model, caches, job.ids[:-1])
        alone = Generation(engine.model, caches, job.sampler, job.ends, job.limit, job.top, job.guide)
        for token in alone.run(job.ids[-1]):
            job.tokens.append(token)
            if job.take(token):
                alone.reason = "stop"
                break
        job.reason = alone.reason
        yield job
