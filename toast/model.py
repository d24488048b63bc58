"""`model`: the models that are here: fetch one, list, show, check, name and remove them.

Owns what is written about them. Where they are and what is fetched is the store's business.
"""

from __future__ import annotations

import os

from toast import pipes, store
from toast.errors import BadModel, Exit, ModelNotFound, UsageError
from toast.store import alias, catalog, hub, inventory
from toast.store.download import size_text
from toast.store.inventory import Model
from toast.task import SAID, purpose

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from toast.command import Call

COLUMNS = ("NAME", "FOR", "ARCHITECTURE", "PARAMETERS", "BITS", "SIZE", "USED", "FORM", "KEPT BY")
LICENCES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "USE_POLICY.md")


def pull(call: Call, names: list[str], *, dry_run: bool) -> None:
    """Fetch models: those of the catalog, those of a hub into the Hugging Face cache."""
    from toast.store import download

    for name in names:
        wanted = catalog.canonical(alias.target(call, name))
        if wanted in catalog.VARIANTS and not dry_run:
            catalog.obtain(call.but(env={**call.env, "TOAST_PULL": "1"}), wanted)  # it is asked for
            continue
        reference = hub.parse(wanted)
        if not reference:
            raise UsageError(f"{name!r} is no name of a hub's", catalog.instead(name))
        files = download.pull(call, reference, dry_run=dry_run)
        if dry_run:
            lines = [f"{file.size}\t{file.name}\n" for file in files]
            pipes.write_all(call.stdout, "".join(lines).encode())
            call.warn(f"{name}: {size_text(sum(file.size for file in files))}")


def ls(call: Call, *, json: bool) -> int:
    """Every model that is here, one a line; the status is 1 where there is none."""
    found = [_told(model) for model in inventory.models(call)]
    if json:
        pipes.write_all(call.stdout, b"".join(map(pipes.json_line, found)))
    elif found:
        pipes.write_all(call.stdout, _table(found).encode())
        held = inventory.size(path for told in found for path in inventory.files(told["path"]))
        call.info(f"{size_text(held)} in all")
    return Exit.OK if found else Exit.NONE


def _told(model: Model) -> dict[str, Any]:
    """What the store tells of a model, and the command that it is for ("kind")."""
    try:
        kind = SAID[purpose(model.path)][1].split()[0]
    except BadModel:
        kind = None
    return {"name": model.name, "kind": kind} | inventory.describe(model)


def _table(found: list[dict[str, Any]]) -> str:
    rows = [COLUMNS, *map(_row, found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "".join("  ".join(map(str.ljust, row, widths)).rstrip() + "\n" for row in rows)


def _row(told: dict[str, Any]) -> tuple[str, ...]:
    bits = told["bits"] and f"{told['bits']:g}"
    cells = (told["name"], told["kind"], told["architecture"], _count(told["parameters"]), bits,
             size_text(told["bytes"]), _day(told["used"]), told["form"], told["owner"])  # fmt: skip
    return tuple(str(cell or "-") for cell in cells)


def _count(number: int | None) -> str:
    """135000000 -> 135M."""
    if not number:
        return ""
    for unit, size in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.{0 if number >= 10 * size else 1}f}{unit}"
    return str(number)


def _day(used: float | None) -> str:
    import time

    return time.strftime("%Y-%m-%d", time.localtime(used)) if used else ""


def show(call: Call, name: str, *, json: bool) -> None:
    """What a model is, and what its files say of it."""
    model = _found(call, name)
    told = _told(model) | _settings(call, model)
    if json:
        pipes.write_all(call.stdout, pipes.json_line(told))
        return
    lines = [f"{key}: {_value(key, value)}\n" for key, value in told.items() if value not in (None, {}, [])]
    pipes.write_all(call.stdout, "".join(lines).encode())


def _value(key: str, value: Any) -> str:
    """A value in a line, or in lines of its own, two blanks further in."""
    if key == "bytes":
        return f"{value} ({size_text(value)})"
    if key == "used":
        return _day(value)
    if isinstance(value, dict):
        parts = [f"{name}: {_value('', part)}" for name, part in value.items()]
    elif isinstance(value, list):
        parts = [_value("", part) for part in value]
    else:
        parts = str(value).splitlines() if "\n" in str(value) else []
    if not parts:
        return str(value)
    return "".join("\n  " + part.replace("\n", "\n  ") for part in parts)


def _settings(call: Call, model: Model) -> dict[str, Any]:
    """{"context", "licence", "prompts", "sampling", "template", "config", "files"} as its small files say."""
    from toast.generation.chat_template import Template
    from toast.store import gguf, gguf_config
    from toast.store.folder import read_config, read_object, transformer

    folder = store.as_folder(call, model.path, weights=False)
    base = transformer(folder)
    if os.path.isdir(model.path):
        config = read_config(base)
    else:
        with gguf.converting(model.path):
            config = gguf_config.config(gguf.whole(model.path))
    cards = [n for n in os.listdir(folder) if n.upper().startswith(LICENCES)]
    limit = read_object(folder, "sentence_bert_config.json").get("max_seq_length")
    return {
        "context": limit or config.get("max_position_embeddings"),
        "licence": _licence(folder) or (", ".join(cards) or None),
        "prompts": read_object(folder, "config_sentence_transformers.json").get("prompts"),
        "sampling": read_object(folder, "generation_config.json") or catalog.sampling(folder),
        "template": Template(base).source,
        "config": config,
        "files": [os.path.relpath(path, os.path.dirname(model.path)) for path in inventory.files(model.path)],
    }


def _licence(folder: str) -> str | None:
    """The licence that a model card names in its head."""
    try:
        with open(os.path.join(folder, "README.md"), encoding="utf-8", errors="replace") as file:
            head = file.read(1 << 16)
    except OSError:
        return None
    lines = head.split("---\n")[1].splitlines() if head.startswith("---\n") else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("license:")), None)


def path(call: Call, name: str) -> None:
    """Where a model is: its folder or its GGUF file."""
    pipes.write_all(call.stdout, os.fsencode(store.find(call, name)) + b"\n")


def rm(call: Call, names: list[str], *, dry_run: bool) -> None:
    """Free what models take; where none is named, what was converted from files that are gone."""
    from toast.store import remove

    gone = [] if names else remove.vanished(call)
    for name in names:
        if name in alias.read(call):
            if not dry_run:
                alias.change(call, name, None)
            call.warn(f"{name} is an alias: the model stays")
            continue
        gone += remove.plan(call, _found(call, name))
    gone = list(dict.fromkeys(gone))
    freed = inventory.size(file for path in gone for file in ([path] if os.path.isfile(path) else _below(path)))
    if not dry_run:
        remove.remove(call, gone)
    pipes.write_all(call.stdout, b"".join(os.fsencode(path) + b"\n" for path in gone))
    if gone:
        call.warn(f"{size_text(freed)} {'would be' if dry_run else 'are'} free")


def _below(folder: str) -> list[str]:
    """The files of a folder to be removed; what links of it lead to stays."""
    paths = [os.path.join(folder, name) for name in hub.below(folder)] if os.path.isdir(folder) else []
    return [path for path in paths if not os.path.islink(path)]


def _listed(call: Call, path: str) -> dict[str, str]:
    """File -> hash, of a model's list of them."""
    from toast.store import sums
    from toast.store.location import home

    own = os.path.realpath(os.path.join(home(call), "models"))
    return sums.of(path, ours=os.path.realpath(path).startswith(own + os.sep))


def verify(call: Call, names: list[str]) -> None:
    """Read models whole and compare them with the hashes that they came under; all of them where none is named."""
    from toast.store import sums

    models = [_found(call, name) for name in names] or list(inventory.models(call))
    known = {path: digest for model in models for path, digest in _listed(call, model.path).items()}
    here = [os.path.realpath(f) for model in models for f in inventory.files(model.path)]
    unknown = 0
    for file in dict.fromkeys([*here, *known]):
        if os.path.basename(file) == sums.NAME:
            continue
        right = sums.holds(file, known[file]) if file in known else hub.is_intact(file)
        word = {True: "ok", False: "damaged", None: "no hash"}[right]
        pipes.write_all(call.stdout, f"{word}\t".encode() + os.fsencode(file) + b"\n")
        unknown += right is None
        if right is False:
            call.error(f"{file} is damaged (model rm it, then model pull it)")
    if unknown:
        call.warn(f"{pipes.plural(unknown, 'file')} came without a hash to compare with")


def alias_of(call: Call, name: str, target: str, *, forget: bool) -> None:
    """Give a model a name of one's own, take it away, or write those that are given."""
    if not name:
        lines = [f"{known}\t{target}\n" for known, target in sorted(alias.read(call).items())]
        pipes.write_all(call.stdout, "".join(lines).encode())
    elif catalog.canonical(name) in catalog.VARIANTS:
        raise UsageError(f"{name} is a name already")
    elif not target and not forget:
        known = alias.read(call).get(name)
        if not known:
            raise ModelNotFound(f"{name} stands for nothing", f"model alias {name} TARGET")
        pipes.write_all(call.stdout, f"{known}\n".encode())
    else:
        alias.change(call, name, None if forget else _lasting(call, target))


def _lasting(call: Call, target: str) -> str:
    """A target that means the same in every folder: paths become absolute."""
    path = call.path(target)
    return path if os.path.exists(path) else target


def _found(call: Call, name: str) -> Model:
    """A model by its name, with the program that keeps it; the user's own has no owner."""
    path = _here(call, name)
    known = next((model for model in inventory.models(call) if model.path == path), None)
    return Model(name, path, known.owner if known else "")


def _here(call: Call, name: str) -> str:
    """Where a model is, without fetching it."""
    wanted = catalog.canonical(alias.target(call, name))
    if wanted in catalog.VARIANTS:
        folder = os.path.join(store.home(call), "models", catalog.VARIANTS[wanted][0])
        if not os.path.isdir(folder):
            raise ModelNotFound(f"{name} is not here", f"model pull {name}")
        return folder
    return store.find(call, wanted, weights=False)
