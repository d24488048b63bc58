"""`model`: declarations, and the verb that each one calls."""

from toast import start  # noqa: F401, I001  before anything that takes time
from toast.command import Call, Command, Group
from toast.errors import UsageError
from toast.options import Argument, Option, refuse_with

HERE = Argument(..., metavar="MODEL", help="As -m takes it: a name, a folder, a .gguf file, org/name, ollama:name.")
DRY_RUN = Option(False, "--dry-run", help="Say what would be done.")


def model_pull(
    call: Call, names: list[str] = Argument(..., metavar="NAME", help="org/name."), dry_run: bool = DRY_RUN
) -> None:
    """Fetch models.

    org/name@revision, org/name:Q4_K_M (one GGUF file of several) and a hub's address are names, too.

    $ model pull org/name
    """
    from toast import model

    model.pull(call, names, dry_run=dry_run)


def model_ls(call: Call, json: bool = Option(False, "--json", help="Write a JSON object for each.")) -> int:
    """List the models that are here: what for, how large, who keeps them.

    Status 1: None is here."""
    from toast import model

    return model.ls(call, json=json)


def model_show(call: Call, name: str = HERE, json: bool = Option(False, "--json", help="Write JSON.")) -> None:
    """Say what a model is: its configuration, prompts, template, licence and files.

    $ model show minilm
    """
    from toast import model

    model.show(call, name, json=json)


def model_path(call: Call, name: str = HERE) -> None:
    """Write where a model is.

    $ ls -l "$(model path minilm)"
    """
    from toast import model

    model.path(call, name)


def model_rm(
    call: Call,
    names: list[str] = Argument([], metavar="MODEL", help="Without one: what was made of files that are gone."),
    dry_run: bool = DRY_RUN,
) -> None:
    """Free the disk that models take, except what anything else uses.

    $ model rm --dry-run minilm
    """
    from toast import model

    model.rm(call, names, dry_run=dry_run)


def model_verify(call: Call, names: list[str] = Argument([], metavar="MODEL", help="All, without one.")) -> None:
    """Compare models with the hashes that they came under.

    Each file is ok, damaged (status 2), or has no hash, as those of programs that keep none.

    $ model verify minilm
    """
    from toast import model

    model.verify(call, names)


def model_alias(
    call: Call,
    name: str = Argument("", metavar="NAME", help="A word. Without it: all aliases are listed."),
    target: str = Argument("", metavar="TARGET", help="What it shall stand for."),
    forget: bool = Option(False, "--forget", help="Let the name stand for nothing."),
) -> None:
    """Give a model a short name.

    $ model alias chat org/name-4bit
    """
    from toast import model

    model.alias_of(call, name, target, forget=forget)


def model_convert(
    call: Call,
    name: str = HERE,
    target: str = Argument(..., metavar="TARGET", help="A folder, in MLX's layout, or NAME.gguf; a new one."),
    kind: str | None = Option(
        None,
        "--type",
        choices=("F16", "BF16", "F32", "Q8_0", "Q4_0"),
        without="F16",
        help="What a GGUF file's matrices are.",
    ),
) -> None:
    """Write a model in another form.

    GGUF to a folder, or a folder to GGUF; of several parts of a GGUF file give any.

    $ model convert chat.gguf chat
    """
    from toast import transform

    transform.convert(call, name, target, kind=kind)


def model_quantize(
    call: Call,
    name: str = HERE,
    target: str = Argument(..., metavar="TARGET", help="The folder to write; a new one."),
    bits: int | None = Option(
        None, "--bits", metavar="N", min=2, max=8, help="Bits of a weight: 2 to 6, or 8.", without="4"
    ),
    group: int | None = Option(
        None, "--group", metavar="N", help="Weights that share a scale: 32, 64 or 128.", without="64"
    ),
    mode: str = Option(
        "affine", "--mode", choices=("affine", "mxfp4", "nvfp4", "mxfp8"), help="How; the others fix bits and group."
    ),
    layers: list[str] = Option(
        [], "--layer", metavar="GLOB=BITS", help="Other bits for layers, 16: as they are; the last that fits."
    ),
    text: str = Option(
        "", "--text", metavar="FILE", help="Keep what this text's activations need (AWQ); takes longer."
    ),
) -> None:
    """Write a model with smaller weights.

    Globs name layers as MLX-LM does.

    $ model quantize org/name small --bits 4
    $ model quantize org/name small --layer lm_head=8 --layer 'layers.0.*=6'
    """
    from toast import transform
    from toast.store import shrink

    if mode != "affine":
        refuse_with(f"--mode {mode}", {"--bits": bits, "--group": group})
    if bits == 7 or group not in (None, *shrink.GROUPS):
        raise UsageError(
            f"{'--bits 7' if bits == 7 else f'--group {group}'}: bits are 2 to 6 or 8, groups 32, 64 or 128"
        )
    wanted = shrink.Wanted(bits or 4, group or 64, mode=mode, layers=shrink.layers_of(layers))
    transform.quantize(call, name, target, wanted=wanted, text=text)


MODEL_VERBS = (
    model_pull, model_ls, model_show, model_path, model_rm, model_verify, model_alias, model_convert, model_quantize,
)  # fmt: skip
model = Group(
    "model",
    """Models: fetch, list, show, check, name and remove them, or write them in another form.

    $ model pull org/name
    $ model ls

    Status 1: `model ls`: no model is here.
    """,
    [Command(function, function.__name__.replace("_", " ")) for function in MODEL_VERBS],
)
