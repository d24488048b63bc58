"""`index`: files and records to one SQLite file, without embedding the same text twice.

Owns what has changed, batches and what a killed run goes on with. Knows nothing of how the file is
laid out (`database.py`), put in place (`target.py`) or searched.
"""

import os
from contextlib import contextmanager

from _blake2 import blake2b

from embed import chunk, database, model
from embed.database import sqlite
from embed.target import Target
from toast import pipes
from toast.errors import BadInput, UsageError

BATCH = 256  # chunks embedded and committed together: what a killed run may lose
SEGMENT = 8192  # vectors of a full segment
LARGEST = 16 << 20  # bytes of a file that is read, unless told otherwise


class Document:
    """A file or a record. number: of the record in its input; name: its id; data: its other fields."""

    __slots__ = ("path", "number", "name", "hash", "data", "content", "id", "size")

    def __init__(self, path, content, number=None, name=None, data=None, raw=None):
        self.path, self.number, self.name, self.data, self.id = path, number, name, data, None
        self.content = content  # a file's bytes, a record's text
        raw = content if raw is None else raw
        self.hash, self.size = blake2b(raw, digest_size=16).digest(), len(raw) + 1


# ---------------------------------------------------------------- where documents come from


class Files:
    """The files of a walk. Iterating a second time walks again."""

    again = True

    def __init__(self, walk):
        self.walk = walk

    def __iter__(self):
        for path, data in self.walk:
            yield Document(path, data) if data is not None else Document(path, b"", number=-1)


class RecordsOf:
    """The records of standard input or of named files. id: the field that identifies one."""

    again, walk = False, None

    def __init__(self, inputs, field, id):
        self.inputs, self.field, self.id = inputs, field, id

    def __iter__(self):
        for path, records in self.inputs:
            for number, record in enumerate(records, 1):
                name = data = None
                if record.data is not None:
                    data = {key: value for key, value in record.data.items() if key != self.field}
                    name = self._name(record.data, path, number)
                    data = pipes.json_line(data).decode()[:-1] if data else None
                yield Document(path, record.text, number, name, data, record.raw)

    def _name(self, data, path, number):
        if not self.id:
            return None
        if self.id not in data:
            raise BadInput(f"{path}, record {number}: no field {self.id!r}", "--id NAME")
        return str(data[self.id])


def source(call, paths, files_from, largest, nul, jsonl, field, id):
    """What the command line names: files and directories, or records."""
    if files_from:
        names = pipes.Records(call, [files_from], nul)
        paths = [*paths, *(os.fsdecode(record.raw) for record in names if record.raw)]
    elif not paths or jsonl or field:
        names = paths or ["-"]
        inputs = [(name, pipes.Records(call, [name] if paths else (), nul, jsonl, field)) for name in names]
        return RecordsOf(inputs, field or "text", id)
    from embed.walk import Walk

    return Files(Walk(call, paths, largest))


# ---------------------------------------------------------------- what is in the index already


class Known:
    """What the index holds of each document. merging: records are looked up by content, not by place."""

    def __init__(self, db, merging: bool):
        self.db, self.merging = db, merging

    def versions(self, document) -> list:
        """(id, hash) of the documents that this one would take the place of."""
        if document.number is None:
            where, values = "path = ? AND number IS NULL", (document.path,)
        elif document.name is not None:
            where, values = "name = ?", (document.name,)
        elif self.merging:
            where, values = "hash = ? AND number IS NOT NULL", (document.hash,)
        else:
            where, values = "path = ? AND number = ?", (document.path, document.number)
        return self.db.execute(f"SELECT id, hash FROM documents WHERE {where}", values).fetchall()

    def same(self, document):
        """The id of the same document, complete and unchanged; None when there is none."""
        return next((id for id, hash in self.versions(document) if hash == document.hash), None)


def unchanged(db, source) -> bool:
    """Whether every file is in the index as it is, and no other of the walked folders is."""
    known, seen = Known(db, True), set()
    for document in source:
        id = known.same(document) if document.number is None else None
        if id is None:
            return False
        seen.add(id)
    return not any(id not in seen for id in below(db, source.walk.folders))


def below(db, folders):
    """Ids of the files under these folders."""
    for folder in folders:
        if folder == ".":
            found = db.execute("SELECT id FROM documents WHERE number IS NULL AND path NOT LIKE '/%' AND path NOT LIKE '../%'")
        else:
            found = db.execute(
                "SELECT id FROM documents WHERE number IS NULL AND substr(path, 1, ?) = ?", (len(folder) + 1, folder + "/")
            )
        yield from (id for (id,) in found)


# ---------------------------------------------------------------- writing


class Writer:
    """Puts documents into an index, a batch of chunks in one transaction; mode: how files are cut."""

    def __init__(self, db, embedder, mode: str = "auto", merging: bool = False):
        self.db, self.embedder, self.mode = db, embedder, mode
        self.known = Known(db, merging)
        self.pending, self.waiting, self.embedded = [], 0, 0
        self._segment = None
        db.execute("CREATE TEMP TABLE seen (id INTEGER PRIMARY KEY)")

    def add(self, document) -> None:
        """Take a document in; what is full is written."""
        for piece in self._chunks(document):
            self.pending.append((document, piece))
            self.waiting += 1
            if self.waiting == BATCH:
                self.flush()
        document.content = None
        self.pending.append((document, None))
        if len(self.pending) >= 8 * BATCH:  # documents without a chunk
            self.flush()

    def _chunks(self, document):
        if document.number is None:
            text = document.content.decode("utf-8", "replace").removeprefix("\ufeff")
            suffix = os.path.splitext(document.path)[1][1:]
            return chunk.chunk(text, self.embedder.count, self.embedder.limit, self.mode, suffix)
        return chunk.record(document.content, self.embedder.count, self.embedder.limit)

    def flush(self) -> None:
        texts = [piece[2] for _, piece in self.pending if piece]
        hashes = [_hash(text) for text in texts]
        vectors = self._vectors(texts, hashes)
        with transaction(self.db):
            ids, replaced = self._write(iter(hashes))
            if ids:
                database.put_segment(self.db, vectors, ids)
            database.remove_documents(self.db, replaced, self.embedder.dims)
            self._segment = None
        self.pending, self.waiting = [], 0

    def _write(self, hashes):
        """The pending documents and chunks: (ids of the new chunks, ids of the documents they replace)."""
        ids, replaced = [], []
        for document, piece in self.pending:
            if document.id is None:
                document.id = self._insert(document)
            if piece is None:
                replaced += [id for id, _ in self.known.versions(document) if id != document.id]
                self.db.execute("UPDATE documents SET hash = ? WHERE id = ?", (document.hash, document.id))
                self.db.execute("INSERT OR IGNORE INTO seen VALUES (?)", (document.id,))
                continue
            start, end, text = piece
            if document.number is not None:
                start = end = document.number
            values = (document.id, start, end, next(hashes), text)
            ids.append(
                self.db.execute(
                    "INSERT INTO chunks (document, start_line, end_line, hash, text) VALUES (?, ?, ?, ?, ?)", values
                ).lastrowid
            )
            database.add_words(self.db, ids[-1], text)
        return ids, dict.fromkeys(replaced)

    def _insert(self, document) -> int:
        values = (document.path, document.number, document.name, document.data)
        return self.db.execute("INSERT INTO documents (path, number, name, data) VALUES (?, ?, ?, ?)", values).lastrowid

    # ---- vectors

    def _vectors(self, texts, hashes) -> list:
        """(codes, scale, exact) of each text; a text that the index or this batch has is not embedded."""
        found, new = {}, {}
        for text, hash in zip(texts, hashes):
            if text not in found and text not in new:
                row = self._kept(text, hash)
                if row:
                    found[text] = row
                else:
                    new[text] = None
        if new:
            found.update(zip(new, self.embedder.rows(list(new))))
            self.embedded += len(new)
        return [found[text] for text in texts]

    def _kept(self, text, hash):
        for id, same in self.db.execute("SELECT id, text FROM chunks WHERE hash = ?", (hash,)):
            if same == text:
                if not (self._segment and id in self._segment.ids):
                    self._segment = database.segment_of(self.db, id, self.embedder.dims)
                return self._segment.row(self._segment.ids.index(id), self.embedder.dims)
        return None


def _hash(text: str) -> int:
    """64 bits of a text, as SQLite's integers are: signed."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


@contextmanager
def transaction(db):
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def pack(db, dims: int) -> None:
    """Join neighbouring segments until each is about full: a search reads fewer of them."""
    group, rows = [], 0
    sizes = db.execute("SELECT first, length(ids) / 8 FROM segments ORDER BY first").fetchall()
    for first, count in [*sizes, (None, SEGMENT)]:
        if rows + count > SEGMENT:
            if len(group) > 1:
                _join(db, group, dims)
            group, rows = [], 0
        group.append(first)
        rows += count


def _join(db, firsts, dims):
    parts = [database.segment_of(db, first, dims) for first in firsts]
    ids = [id for part in parts for id in part.ids]
    exact = b"".join(part.exact for part in parts) if parts[0].exact is not None else None
    row = b"".join(part.codes for part in parts), b"".join(part.scales for part in parts), exact
    with transaction(db):
        db.execute("DELETE FROM segments WHERE first BETWEEN ? AND ?", (firsts[0], firsts[-1]))
        database.put_segment(db, [row], ids)


# ---------------------------------------------------------------- the verb


def index(call, source, output, update, name, mode, exact) -> None:
    """Build an index of the source: to standard output, to the file `output`, or in place of `update`."""
    if not (output or update):
        pipes.refuse_terminal(call, "index ... > index.db, or -o index.db")
    name, mode, exact = settings(call, update, name, mode, exact)
    if update and source.again and _nothing_to_do(call, update, source):
        return
    digest = model.digest(call, name)
    made = {"model": model.name_of(call, name), "digest": digest, "chunk": mode, "exact": int(exact)}
    key = _key(call, made, source, output or update)
    target = Target(call, output or update, bool(update), key)
    try:
        with database.damage(update) if update else _disk(target):
            db = target.open()
        with _disk(target):
            _build(call, db, source, made, bool(update))
            target.finish()
    except BaseException:
        target.abandon()
        raise


def settings(call, update, name, mode, exact):
    """(model, chunker, exact): as asked for; an update keeps to what the index was made with."""
    if not update:
        return name or model.DEFAULT, mode or "auto", exact
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


def _key(call, made, source, path) -> str:
    """What is being built: the settings, what is read, from where, and into what."""
    status = os.fstat(call.stdout)
    into = path or (status.st_dev, status.st_ino)
    roots = source.walk.roots if source.walk else [name for name, _ in source.inputs]
    whole = repr((sorted(made.items()), list(roots), pipes.path_of(call.cwd), into))
    return blake2b(whole.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


@contextmanager
def _disk(target):
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
        for document in source:
            if document.number == -1:  # a named file that is not there
                _missing(call, writer, document, update)
                continue
            same = writer.known.same(document)
            if same is None:
                writer.add(document)
            else:
                writer.db.execute("INSERT OR IGNORE INTO seen VALUES (?)", (same,))
            bar.update(document.size)
        writer.flush()


def source_size(call, source):
    """Bytes to read, for a bar that somebody sees; None when unknown."""
    if not os.isatty(call.stderr) or not source.again:
        return None
    return sum(len(data) + 1 for _, data in source.walk if data)


def _missing(call, writer, document, update):
    ids = [id for (id,) in writer.db.execute("SELECT id FROM documents WHERE path = ? AND number IS NULL", (document.path,))]
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
        folders = below(db, source.walk.folders) if source.walk else ()
        gone = [id for id in folders if not db.execute(seen, (id,)).fetchone()]
        gone += [id for (id,) in db.execute("SELECT id FROM documents WHERE hash IS NULL")]
    gone = list(dict.fromkeys(gone))
    for start in range(0, len(gone), BATCH):
        with transaction(db):
            database.remove_documents(db, gone[start : start + BATCH], dims)


def _report(call, db, source, writer):
    documents, chunks = (db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("documents", "chunks"))
    call.info(f"{documents} documents, {chunks} chunks, {writer.embedded} of them embedded now")
    if source.walk and source.walk.skipped["too large"]:
        call.warn(f"{pipes.plural(source.walk.skipped['too large'], 'file')} over --max-filesize skipped")
    encoder = writer.embedder.encoder
    if encoder.cut:
        call.cut(f"{pipes.plural(encoder.cut, 'chunk')} over {encoder.tokens.max_length} tokens cut")
