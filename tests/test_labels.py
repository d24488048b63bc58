"""Labels and examples, however they are written: one spelling, and what is wrong is told with its place."""

import json

import pytest
from command import command, shell

from rerank import labels

EXAMPLES = [("cat dog", "animal"), ("bird cat", "animal"), ("blue sky", "sky"), ("red sky", "sky")] * 2


def labels_of(model, tmp_path, lines, *words):
    """The labels of a file, as `-c` writes them."""
    (tmp_path / "l").write_text(lines)
    ran = command("classify", "-m", model, "-L", "l", "-c", *words, stdin=b"a cat\n", cwd=tmp_path)
    return [line.split("\t")[0] for line in ran.ok(quiet=False).out.decode().splitlines()]


def test_an_example_without_text_is_left_out_and_told(model, tmp_path):
    lines = [{"text": text, "label": label} for text, label in EXAMPLES]
    empty = [{"text": "", "label": "sky"}, {"text": " \t", "label": "animal"}]
    ran = learnt(model, tmp_path, jsonl([lines[0], *empty, *lines[1:]]), name="some").ok(quiet=False)
    told, verdict = ran.err.decode().splitlines()
    assert told == "classify: 2 examples without text left out, the first at some, line 2"
    probe = (tmp_path / "x.probe").read_bytes()
    assert learnt(model, tmp_path, jsonl(lines), name="some").ok(quiet=False).err.decode().splitlines() == [verdict]
    assert (tmp_path / "x.probe").read_bytes() == probe
    learnt(model, tmp_path, jsonl(empty), "-l", "sky,animal", "-q").fails("no examples")


def learnt(model, tmp_path, text, *words, name="e"):
    (tmp_path / name).write_text(text)
    return command("classify", "--learn", name, "-o", "x.probe", "-m", model, *words, cwd=tmp_path)


def labels_learnt(tmp_path):
    out = command("classify", "-m", "x.probe", "-k", "9", stdin=b"cat\n", cwd=tmp_path).ok().out.decode()
    return sorted(line.split("\t")[0] for line in out.splitlines())


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        ("LOC:city\nLOC:country\n", ["LOC:city", "LOC:country"]),
        ("area:net\nprio:high\n", ["area:net", "prio:high"]),
        ("http://a\nb: the second\n", ["http://a", "b"]),
        ("kind:bug: something broke\nkind:feature\tsomething: new\n", ["kind:bug", "kind:feature"]),
        ("a,b\nc, d: and more\n", ["a,b", "c, d"]),
        (" a \n b:  \n", ["a", "b"]),
        ("bug: d\tx\nwish:\nidea:\t0.3\nask:\twhat: why\n", ["bug", "wish", "idea", "ask"]),
        ("a\tsome words\t0.7\nb\t0.2\nc: words: more\t.5\n", ["a", "b", "c"]),
        ("error\\: fatal: it ends\na\\, b\\: c\nC\\d\\:\t0.3\n", ["error: fatal", "a\\, b: c", "C\\d:"]),
        ("C:\\\\: the drive\nD\\\\:\nE\\\\\twords\nf\\\n", ["C:\\", "D\\", "E\\", "f\\"]),
    ],
)
def test_lines_of_a_label_file(model, tmp_path, lines, names):
    assert labels_of(model, tmp_path, lines) == names


def test_a_comma_of_a_label(model):
    ran = command("classify", "-m", model, "-l", r"a\,b,c, d\,,e\\,f\:", "-c", stdin=b"a cat\n").ok()
    assert [line.split(b"\t")[0] for line in ran.out.splitlines()] == [b"a,b", b"c", b"d,", b"e\\", b"f\\:"]


def test_a_description_goes_on_after_a_tab():
    one = labels._of_line("bug: it broke\tor  hangs\t0.4")
    assert (one.name, one.about, one.threshold) == ("bug", "it broke or hangs", 0.4)
    one = labels._of_line("wish_list:")
    assert (one.name, one.about, one.threshold) == ("wish_list", "wish list", None)


def test_what_is_wrong_with_the_labels_of_a_lesson_names_their_file(model, tmp_path):
    (tmp_path / "l").write_text("cat\n")
    taught = "cat\tthe cat\ndog\ta dog\n"
    learnt(model, tmp_path, taught, "-l", "cat,sky").fails("label 'dog' is not one of cat, sky (the labels of -l)")
    learnt(model, tmp_path, "cat\tthe cat\n", "-L", "l").fails("l: 1 label (a probe chooses between two or more)")
    learnt(model, tmp_path, "cat\tthe cat\n", "-l", "cat").fails("-l: 1 label (")
    learnt(model, tmp_path, "cat\tthe cat\n").fails("e: 1 label in 1 example (")


def test_one_label_of_a_probe(model, tmp_path):
    """What is proposed can be done."""
    learnt(model, tmp_path, "cat\tthe cat\ndog\ta dog\n")
    words = ["classify", "-m", "x.probe"]
    command(*words, "-l", "cat", stdin=b"cat\n", cwd=tmp_path).fails("one label decides nothing", "--only cat")
    assert command(*words, "--only", "cat", stdin=b"cat\ndog\n", cwd=tmp_path).status in (0, 1)


def test_a_label_has_a_threshold_of_its_own(model, tmp_path):
    def given(lines, *words):
        (tmp_path / "l").write_text(lines)
        words = ["-m", model, "-L", "l", "--multi", "--json", *words]
        out = command("classify", *words, stdin=b"a cat sat\n", cwd=tmp_path).out
        return [one["label"] for one in json.loads(out)["labels"]]

    assert given("cat\t0\ndog\t1\nsky: blue sky\t0\n") in (["cat", "sky"], ["sky", "cat"])
    assert given("cat\t0\ndog\nsky\n", "--threshold", "1") == ["cat"]
    (tmp_path / "l").write_text("cat\t120\ndog\t7\n")  # as a list of counts has it
    told = "the threshold of 'cat', 120 is over every score"
    command("classify", "-m", model, "-L", "l", stdin=b"a cat\n", cwd=tmp_path).fails(told, "from 0 to 1")
    (tmp_path / "e").write_text("cat\tthe cat\ndog\ta dog\n")
    words = ["--learn", "e", "-o", "x.probe", "-L", "l", "-m", model]
    command("classify", *words, cwd=tmp_path).fails(told)


def test_names_that_differ_in_case(model, tmp_path):
    ran = command("classify", "-m", model, "-l", "bug,Bug", stdin=b"cat\n")
    assert ran.status == 0 and b"'bug' and 'Bug' differ in case alone" in ran.err
    ran = learnt(model, tmp_path, jsonl({"text": t, "label": lab} for t, lab in [("cat", "a"), ("dog", "A")]))
    assert ran.status == 0 and b"'A' and 'a' differ in case alone" in ran.err


# ---------------------------------------------------------------- examples


@pytest.mark.parametrize(
    ("given", "known"),
    [
        (["bug", "bug ", "feature"], ["bug", "feature"]),
        ([" bug\t", "bug", "feature\u00a0"], ["bug", "feature"]),
        ([True, False, True], ["false", "true"]),
        ([1, 2, 1], ["1", "2"]),
        ([1.5, -2, "1.5"], ["-2", "1.5"]),
    ],
)
def test_labels_of_examples_are_spelled_as_words_are(model, tmp_path, given, known):
    learnt(model, tmp_path, jsonl({"text": "cat", "label": label} for label in given)).ok(quiet=False)
    assert labels_learnt(tmp_path) == known


@pytest.mark.parametrize("label", [None, "", "  ", {}, "a\tb", "a\nb"])
def test_labels_that_are_none(model, tmp_path, label):
    rows = [{"text": "cat", "label": "a"}, {"text": "dog", "label": label}]
    learnt(model, tmp_path, jsonl(rows)).fails("e, line 2: label", "is no printable text")


def test_examples_in_every_form_teach_the_same(model, tmp_path):
    bytes_of = []
    (tmp_path / "d").mkdir()
    for label in ("animal", "sky"):
        (tmp_path / "d" / label).mkdir()
        (tmp_path / "lines").mkdir(exist_ok=True)
        own = [text for text, name in EXAMPLES if name == label]
        (tmp_path / "lines" / f"{label}.txt").write_text("\n".join(own))
        for i, text in enumerate(own):
            (tmp_path / "d" / label / f"{i}.txt").write_text(text)
    (tmp_path / "d" / ".git").mkdir()
    ordered = sorted(EXAMPLES, key=lambda one: one[1])
    (tmp_path / "json").write_text(jsonl({"text": text, "label": label} for text, label in ordered))
    (tmp_path / "tabs").write_text("".join(f"{label}\t{text}\r\n" for text, label in ordered))
    for source in ("d", "lines", "json", "tabs"):
        command("classify", "--learn", source, "-o", "x.probe", "-m", model, cwd=tmp_path).ok(quiet=False)
        bytes_of.append((tmp_path / "x.probe").read_bytes())
    assert bytes_of == [bytes_of[0]] * 4


def test_a_probe_goes_to_standard_output(model, tmp_path):
    text = jsonl({"text": text, "label": label} for text, label in EXAMPLES)
    learnt(model, tmp_path, text).ok(quiet=False)
    out = command("classify", "--learn", "e", "-o", "-", "-m", model, "-q", cwd=tmp_path).ok().out
    assert out == (tmp_path / "x.probe").read_bytes() and not (tmp_path / "-").exists()
    shell(f"classify -q --learn e -o - -m {model} > y && echo cat | classify -m y", cwd=tmp_path).ok()


def test_what_is_said_of_a_probe(model, tmp_path):
    said = learnt(model, tmp_path, jsonl({"text": text, "label": label} for text, label in EXAMPLES)).err.decode()
    assert said.startswith("classify: 8 examples, 2 labels: accuracy ") and said.count("\n") == 1
    assert "cross-validation" in said and "label names alone" in said and "largest class 0.50" in said
    assert said.endswith("; of under 20 examples that says little\n")
    command("classify", "-q", "--learn", "e", "-o", "x.probe", "-m", model, cwd=tmp_path).ok()


def test_labels_and_examples_together(model, tmp_path):
    text = jsonl({"text": text, "label": label} for text, label in EXAMPLES)
    learnt(model, tmp_path, text, "-l", "sky,animal,line").ok(quiet=False)
    assert labels_learnt(tmp_path) == ["animal", "line", "sky"]
    assert b"'line' has no example" in learnt(model, tmp_path, text, "-l", "sky,animal,line").err
    learnt(model, tmp_path, text, "-l", "sky,line").fails("e, line 1: label 'animal' is not one of line, sky")
    (tmp_path / "l").write_text("sky: blue\t0.9\nanimal: a cat or a dog\n")
    learnt(model, tmp_path, text, "-L", "l").ok(quiet=False)
    out = command("classify", "-m", "x.probe", "--none", "?", stdin=b"sky\n", cwd=tmp_path).ok().out
    assert out.startswith((b"?\t", b"animal\t"))  # the threshold went into the probe


def test_lines_that_are_no_examples(model, tmp_path):
    learnt(model, tmp_path, "a\tcat\nno tab\n").fails("e, line 2: no tab after a label")
    learnt(model, tmp_path, 'a\tcat\n{"text": "dog"}\n').fails("e, line 2: no field 'label'")
    both = '{"text": "dog", "label": "a"}\n{"text": "dog", "labels": ["a"]}\n'
    learnt(model, tmp_path, both).fails("line 2: label and labels are mixed")
    learnt(model, tmp_path, '{"text": "dog", "labels": "a"}\n').fails("labels 'a' are no list")
    (tmp_path / "empty").mkdir()
    command("classify", "--learn", "empty", "-o", "x", "-m", model, cwd=tmp_path).fails("empty: no examples")


# ---------------------------------------------------------------- many labels


@pytest.fixture(scope="module")
def many(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    rows = [{"text": text, "labels": [label]} for text, label in EXAMPLES]
    rows += [{"text": "cat under a blue sky", "labels": ["sky", "animal"]}, {"text": "mat line", "labels": []}] * 3
    (folder / "e").write_text(jsonl(rows))
    command("classify", "--learn", "e", "-o", "x.probe", "-m", model, cwd=folder).ok(quiet=False)
    return folder


def test_a_probe_of_many_labels(many):
    stdin = b"cat dog\nblue sky\nmat line\n\n"
    out = command("classify", "-m", "x.probe", "--json", stdin=stdin, cwd=many).ok().out
    rows = [json.loads(line) for line in out.splitlines()]
    assert len(rows) == 4 and rows[3]["labels"] == [] and rows[3]["label"] == ""
    assert out == command("classify", "-m", "x.probe", "--json", "--multi", stdin=stdin, cwd=many).ok().out
    for row in rows:
        assert all(one["score"] >= 0.5 for one in row["labels"])
    some = ["--threshold", "0", "-l", "sky", "--json", "--multi"]
    (row,) = command("classify", "-m", "x.probe", *some, stdin=b"sky\n", cwd=many).ok().out.splitlines()
    assert [one["label"] for one in json.loads(row)["labels"]] == ["sky"]


def test_a_report_of_many_labels(many):
    out = command("classify", "-m", "x.probe", "--report", "e", "--errors", cwd=many).ok().out.decode()
    first, second, *more = out.split("\n\n")
    measures = dict(line.split("\t") for line in first.splitlines())
    assert measures["records"] == "14" and 0 <= float(measures["F1"]) <= 1
    assert second.splitlines()[0] == "label\trecords\tgiven\tprecision\trecall" and len(second.splitlines()) == 3
    wrong = round(14 * (1 - float(measures["all labels right"])))
    assert sum(block.count("\n") - 1 for block in more) == wrong


def test_a_probe_of_one_label_takes_no_multi(model, tmp_path):
    learnt(model, tmp_path, jsonl({"text": text, "label": label} for text, label in EXAMPLES)).ok(quiet=False)
    command("classify", "-m", "x.probe", "--multi", stdin=b"cat", cwd=tmp_path).fails("--multi", "learn from lists")


def test_mistakes_are_named_with_their_lines(model, tmp_path):
    rows = [{"text": "cat", "label": "animal"}, {"text": "cat", "label": "sky"}, {"text": "", "label": "sky"}]
    (tmp_path / "e").write_text(jsonl(rows))
    words = ["-m", model, "-l", "animal,sky", "--report", "e", "--errors"]
    out = command("classify", *words, cwd=tmp_path).ok().out.decode()
    blocks = out.rstrip("\n").split("\n\n")
    assert blocks[1].startswith("count\tis\tgiven\n") and blocks[2].startswith("is \\ given")
    head, *wrong = blocks[3].split("\n")
    assert head == "where\tis\tgiven\tscore\ttext"
    given = (
        command("classify", "-m", model, "-l", "animal,sky", stdin=b"cat", cwd=tmp_path).out.split(b"\t")[0].decode()
    )
    line = 2 if given == "animal" else 1
    assert wrong[0].startswith(f"e, line {line}\t") and wrong[1].startswith("e, line 3\tsky\tanimal\t0.5000\t")
    command("classify", "-m", model, "-l", "a,b", "--errors").fails("--errors goes with --report")
