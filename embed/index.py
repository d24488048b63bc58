"""`index`: files and records to one SQLite file.

Owns the order of the steps: what has changed, what is written, what goes away, what is told.
"""

import os
from _blake2 import blake2b
from contextlib import contextmanager

from embed import database, model
from embed.build import Target
from embed.database import sqlite
from embed.writer import BATCH, Writer, below, pack, transaction, unchanged
from toast import pipes
from toast.errors import BadInput, UsageError
from toast.store.fingerprint import digest, name_of


def index(call, source, output, update, name, mode, exact) -> None:
    """Build an index of the source: to standard output, to the file `output`, or in place of `update`."""
    if not (output or update):
        pipes.refuse_terminal(call, "index ... > index.db, or -o index.db")
    name, mode, exact = settings(call, update, name, mode, exact)
    if update and source.again and _nothing_to_do(call, update, source):
        return
    made = {"model": name_of(call, name), "digest": digest(call, name), "chunk": mode, "exact": int(exact)}
    roots = source.walk.roots if source.walk else [name for name, _ in source.inputs]
    key = key_of(call, made, roots, output or update)
    target = Target(call, output or update, bool(update), key)
    try:
        with database.damage(update) if update else disk(target):
            db = target.open()
        with disk(target):
            _build(call, db, source, made, bool(update))
            if call.outcome.had_errors and not update and not _documents(db):
                return target.discard()
            target.finish()
    except BaseException:
        target.abandon()
        raise


def settings(call, update, name, mode, exact):
    """(model, chunker, exact): as asked for; an update keeps to what the index was made with."""
    if not update:
        return model.chosen(call, name), mode or "auto", exact
    fd = database.open_file(call, update)
    try:
        db = database.open_fd(call, fd, update)
        with database.damage(update):
            made = database.meta(db)
            if name:
                model.check(call, name, made["digest"], update)
            if mode not in (None, made["chunk"]) or exact and not made["exact"]:
                raise UsageError(f"{update} was made with other settings", f"build it again: index -o {update} ...")
            return name or made["model"], made["chunk"], bool(made["exact"])
    finally:
        os.close(fd)


def _nothing_to_do(call, path, source) -> bool:
    fd = database.open_file(call, path)
    try:
        db = database.open_fd(call, fd, path)
        with database.damage(path):
            return unchanged(db, source)
    finally:
        os.close(fd)


def key_of(call, made, roots, path) -> str:
    """What is being built: the settings, what is read, from where, and into what."""
    status = os.fstat(call.stdout)
    into = path or (status.st_dev, status.st_ino)
    whole = repr((sorted(made.items()), list(roots), pipes.path_of(call.cwd), into))
    return blake2b(whole.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


@contextmanager
def disk(target):
    try:
        yield
    except sqlite.Error as error:
        raise BadInput(f"cannot write {target.part}: {error}", "what is done is kept: run it again") from error


def _build(call, db, source, made, update):
    embedder = model.Embedder(call, made["model"], bool(made["exact"]))
    if not update:
        database.set_meta(db, dims=embedder.dims, **made)
    writer = Writer(db, embedder, made["chunk"], merging=update)
    fill(call, writer, source, update)
    _remove_unseen(db, source, embedder.dims, update)
    pack(db, embedder.dims)
    db.execute("INSERT INTO words (words) VALUES ('optimize')")
    _report(call, db, source, writer)


def fill(call, writer, source, update=False) -> None:
    """Write every document of the source that the index does not have as it is."""
    with pipes.progress(call, source_size(call, source), "byte") as bar:
        writer.tick = bar.update
        for document in source:
            if document.content is None:
                _missing(call, writer, document, update)
                continue
            same, told = writer.known.same(document), 0
            if same is None:
                told = writer.add(document)
            else:
                writer.db.execute("INSERT OR IGNORE INTO seen VALUES (?)", (same,))
            bar.update(document.size - told)
        writer.flush()


def source_size(call, source):
    """Bytes to read, for a bar that somebody sees; None when unknown."""
    return source.walk.size() if source.walk and os.isatty(call.stderr) else None


def _missing(call, writer, document, update):
    rows = writer.db.execute(
        "SELECT id FROM documents WHERE path = ? AND number IS NULL", (database.stored(document.path),)
    )
    ids = [id for (id,) in rows]
    if not (update and ids):
        call.error(f"cannot open {document.path}: No such file or directory")
        return
    with transaction(writer.db):
        database.remove_documents(writer.db, ids, writer.embedder.dims)


def _remove_unseen(db, source, dims, update):
    """Drop what the source no longer has, and what a killed run left half done."""
    if not update:
        gone = [id for (id,) in db.execute("SELECT id FROM documents WHERE id NOT IN seen")]
    else:
        seen = "SELECT 1 FROM seen WHERE id = ?"
        folders = below(db, source.walk) if source.walk else ()
        gone = [id for id in folders if not db.execute(seen, (id,)).fetchone()]
        gone += [id for (id,) in db.execute("SELECT id FROM documents WHERE hash IS NULL")]
    gone = list(dict.fromkeys(gone))
    for start in range(0, len(gone), BATCH):
        with transaction(db):
            database.remove_documents(db, gone[start : start + BATCH], dims)


def _documents(db) -> int:
    return db.execute("SELECT count(*) FROM documents").fetchone()[0]


def _report(call, db, source, writer):
    documents, chunks = (db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("documents", "chunks"))
    call.info(f"{documents} documents, {chunks} chunks, {writer.embedded} of them embedded now")
    if source.walk and source.walk.skipped["too large"]:
        call.warn(f"{pipes.plural(source.walk.skipped['too large'], 'file')} over --max-filesize skipped")
    encoder = writer.embedder.encoder
    if encoder.cut:
        call.cut(f"{pipes.plural(encoder.cut, 'chunk')} over {encoder.tokens.max_length} tokens cut")
