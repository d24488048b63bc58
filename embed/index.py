"""`index`: files and records to one SQLite file.

Owns the order of the steps: what has changed, what is written, what goes away, what is told.
"""

from __future__ import annotations

import os
from _blake2 import blake2b
from collections import Counter
from contextlib import contextmanager

from embed import database, model, schema, vectors, words
from embed.build import Build
from embed.documents import Files
from embed.schema import transaction
from embed.walk import LARGE
from embed.writer import BATCH, GENERATED, LATIN, UNREADABLE, Writer, below, unchanged
from toast import pipes
from toast.cancel import checkpoint
from toast.errors import BadInput, Exit, UsageError
from toast.store.fingerprint import digest, name_of

NOT_THERE = "cannot open {}: No such file or directory"
SAMPLE = 16  # chunks that are looked at for their script

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from sqlite3 import Connection
    from typing import Any

    from embed.documents import Document, RecordsOf
    from toast.command import Call

    Source = Files | RecordsOf


def index(
    call: Call,
    source: Source,
    *,
    output: str | None,
    update: str | None,
    name: str | None,
    mode: str | None,
    exact: bool,
    empty: bool = False,
) -> Exit:
    """Build an index of the source: to standard output, to a file `output`, or in place of `update`, if that is there.

    empty: an index of nothing may take the place of one that is there.
    An update of nothing leaves the file as new as it would be (make looks at that)."""
    asked: dict[str, Any] = {"update": update, "name": name, "mode": mode, "exact": exact, "empty": empty}
    absent = False
    if update and not _is_there(call, update):
        output, update, absent = update, None, True
    if not (output or update):
        pipes.refuse_terminal(call, "index ... > index.db, or -o index.db")
    if update:
        with schema.opened(call, update) as db:
            name, mode, exact = settings(call, update, db, name=name, mode=mode, exact=exact)
            database.expect_sound(db)
            if isinstance(source, Files) and _nothing_to_do(db, source):
                os.utime(call.path(update))
                return _status(db)
    name, mode = model.chosen(call, name), mode or "auto"
    meta = {"model": name_of(call, name), "digest": digest(call, name), "chunk": mode, "exact": int(exact)}
    roots = source.walk.roots if isinstance(source, Files) else [name for name, _ in source.inputs]
    key = key_of(call, meta, roots, path=output or update)
    build = Build(call, output or update, key=key, update=bool(update))
    file = output or update
    spared = file if file and not empty and _is_there(call, file) else ""
    if spared and not update:
        _expect_roots(source, spared)
    try:
        status = _build(call, build, source, meta=meta, spared=spared, absent=absent)
    except schema.DamagedIndex:
        if not (build.resumed and isinstance(source, Files)):  # records cannot be read again
            raise
        status = _build(call, build, source, meta=meta, spared=spared, absent=absent)  # the part is gone: anew
    return index(call, source, output=None, **asked) if status is None else status


def _is_there(call: Call, file: str) -> bool:
    """Whether an index has been begun: mktemp's file, and what a shell made for `>`, are none yet."""
    try:
        return os.path.getsize(call.path(file)) > 0
    except OSError:
        return False


def _expect_roots(source: Source, spared: str) -> None:
    """All that the command line names is there: a disk that is not mounted must not cost the index that is."""
    if isinstance(source, Files) and not source.walk.whole and (root := source.walk.missing()):
        raise BadInput(NOT_THERE.format(root), f"{spared} stays as it was; --empty-ok replaces it")


def _status(db: Connection) -> Exit:
    """Of an index: there is something to be found in it, or there is not."""
    return Exit.OK if database.counts(db)[1] else Exit.NONE


def _build(
    call: Call, build: Build, source: Source, *, meta: dict[str, Any], spared: str, absent: bool = False
) -> Exit | None:
    """spared: the index that is better than one of nothing. absent: what is updated is not there; None, and nothing is
    done, where another run has made it meanwhile."""
    with writing(build):
        db = build.open()
        if absent and build.path and _is_there(call, build.path):
            build.discard()
            return None
        _fill(call, db, source, meta=meta, update=build.update)
        status = _status(db)
        lost = call.outcome.had_errors and not build.update and not database.counts(db)[0]
        if lost or status == Exit.NONE and spared:
            build.discard()
        else:
            build.finish()
    if status == Exit.NONE and not call.outcome.had_errors:
        kept = f"; {spared} stays as it was (--empty-ok replaces it)" if spared else ""
        call.warn(f"nothing to search: no text was found{kept}")
    return status


def settings(
    call: Call, update: str, db: Connection, *, name: str | None, mode: str | None, exact: bool
) -> tuple[str, str, bool]:
    """(model, chunker, exact) of an update: what the index was made with, unless something else was asked for."""
    made = database.settings(db)
    model.check(call, name or made["model"], made=made["model"], expected=made["digest"], index=update)
    if mode not in (None, made["chunk"]) or exact and not made["exact"]:
        raise UsageError(f"{update} was made with other settings", f"build it again: index -o {update} ...")
    return name or made["model"], made["chunk"], bool(made["exact"])


def _nothing_to_do(db: Connection, source: Files) -> bool:
    """Whether an index is of the version that is written, and has the files as they are."""
    return schema.version_of(db) == schema.CURRENT and unchanged(db, source)


def key_of(call: Call, meta: dict[str, Any], roots: Sequence[str], *, path: str | None) -> str:
    """What is being built: the settings, what is read, from where, and into what."""
    status = os.fstat(call.stdout)
    into = path or (status.st_dev, status.st_ino)
    whole = repr((sorted(meta.items()), list(roots), pipes.path_of(call.cwd), into))
    return blake2b(whole.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


@contextmanager
def writing(build: Build) -> Iterator[None]:
    """Whatever ends this run, what is worth it is kept for the next one; of what is damaged nothing is."""
    try:
        with build.disk():
            yield
    except schema.DAMAGE as error:
        if not build.base:
            build.abandon()
            raise
        build.discard()
        raise schema.DamagedIndex(build.base, error) from error
    except BaseException:
        build.abandon()
        raise


def _fill(call: Call, db: Connection, source: Source, *, meta: dict[str, Any], update: bool) -> None:
    embedder = model.Embedder(call, meta["model"], exact=bool(meta["exact"]))
    if not update:
        database.set_meta(db, dims=embedder.dims, **meta)
    elif (dims := database.meta(db).get("dims")) != embedder.dims:
        raise ValueError(f"{dims!r} dimensions, its model has {embedder.dims}")
    writer = Writer(db, embedder, mode=meta["chunk"], update=update)
    fill(call, writer, source, update=update)
    _remove_unseen(db, source, dims=embedder.dims, update=update)
    vectors.pack(db, embedder.dims)
    words.optimize(db)
    if update:
        schema.shrink(db)
    tell_skipped(call, source, writer)
    _report(call, db, writer=writer, embedder=embedder)


def fill(call: Call, writer: Writer, source: Source, *, update: bool = False) -> None:
    """Write every document of the source that the index does not have as it is."""
    with pipes.progress(call, source_size(call, source), "byte") as bar:
        writer.tick = bar.update
        for document in source:
            checkpoint()
            if document.content is None:
                _missing(call, writer, document, update=update)
                continue
            same, told = writer.known.same(document), 0
            if same is None:
                told = writer.add(document)
            else:
                database.mark_seen(writer.db, same)
            bar.update(document.size - told)
        writer.flush()


def source_size(call: Call, source: Source) -> int | None:
    """Bytes to read, for a bar that somebody sees; None when unknown."""
    return source.walk.size() if isinstance(source, Files) and os.isatty(call.stderr) else None


def _missing(call: Call, writer: Writer, document: Document, *, update: bool) -> None:
    """A file that was named is not there: an update takes it out, anything else is told of it."""
    ids = [id for id, _ in database.file_versions(writer.db, database.stored(document.path))]
    if not (update and ids):
        hint = f" (index PATH -o {document.path} makes it)" if document.path.endswith(".db") else ""
        call.error(NOT_THERE.format(document.path) + hint)
        return
    with transaction(writer.db):
        database.remove_documents(writer.db, ids, writer.embedder.dims)


def _remove_unseen(db: Connection, source: Source, *, dims: int, update: bool) -> None:
    """Drop what the source no longer has, and what a killed run left half done."""
    if not update:
        gone = database.unseen(db)
    else:
        files = below(db, source.walk) if isinstance(source, Files) else ()
        gone = [id for id in files if not database.is_seen(db, id)] + database.incomplete(db)
    gone = list(dict.fromkeys(gone))
    for start in range(0, len(gone), BATCH):
        with transaction(db):
            database.remove_documents(db, gone[start : start + BATCH], dims)


def tell_skipped(call: Call, source: Source, writer: Writer) -> None:
    """What was passed over, and what was read in another way than others: a line for each, with numbers."""
    for _, path, what in writer.notes:
        call.info(f"{path}: {what}")
    kinds = Counter(kind for kind, *_ in writer.notes)
    found: dict[str, int] = {}
    if isinstance(source, Files):
        found, largest = source.walk.skipped, source.walk.largest >> 20
        found = {f"over {largest} MB" if why == LARGE else why: count for why, count in found.items()}
    parts = [f"{pipes.plural(count, f'{why} file') if why == 'binary' else f'{count} {why}'}" for why, count in
             (found | {UNREADABLE: kinds[UNREADABLE]}).items() if count]  # fmt: skip
    if kinds[GENERATED]:
        parts.append(f"all but the beginning of {kinds[GENERATED]} generated or minified")
    if parts:
        call.warn(f"skipped {', '.join(parts)}" + "; -v lists them" * (not call.verbose))
    if kinds[LATIN]:
        call.warn(f"{pipes.plural(kinds[LATIN], 'file')} held invalid UTF-8, read as Latin-1")


def _report(call: Call, db: Connection, *, writer: Writer, embedder: model.Embedder) -> None:
    documents, chunks = database.counts(db)
    call.info(f"{documents} documents, {chunks} chunks, {writer.embedded} of them embedded now")
    encoder = embedder.encoder
    sample = database.sample(db, SAMPLE)
    if 2 * sum(map(encoder.tokens.reads, sample)) < len(sample):
        call.warn(model.unread(database.settings(db)["model"], "text"))
    if encoder.cut:
        call.cut(f"{pipes.plural(encoder.cut, 'chunk')} over {encoder.tokens.max_length} tokens cut")
