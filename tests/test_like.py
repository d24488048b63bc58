"""`search --like`: what is asked of a text, and that it is not its own answer."""

import json
import shutil

import pytest
from command import command, shell

FILES = {
    "cats.md": "# Cats\n\nthe cat sat on the mat. the red cat ran.\n",
    "cat2.md": "a cat on a mat: the cat sat\n",
    "sky.txt": "the sky is blue\n",
    "pipe.txt": "a fast pipe and a slow filter model\n",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model):
    made = tmp_path_factory.mktemp("like")
    for name, text in FILES.items():
        (made / name).write_text(text)
    command("index", "-m", model, ".", "-o", "x.db", cwd=made).ok()
    return made


def like(folder, name, *words, **options):
    return command("search", "--like", name, "-i", "x.db", *words, cwd=folder, **options)


def paths(result):
    return result.ok().out.decode().split()


@pytest.mark.parametrize("mode", ["hybrid", "lexical"])
def test_a_text_finds_its_like_and_not_itself(folder, mode):
    found = paths(like(folder, "cats.md", "--mode", mode, "-l", "--threshold", "0"))
    assert found[0] == "cat2.md" and "cats.md" not in found
    found = paths(like(folder, "-", "--mode", mode, "-l", "--threshold", "0", stdin=FILES["cats.md"].encode()))
    assert found[0] == "cat2.md" and "cats.md" not in found  # by its bytes


def test_a_text_is_itself_wherever_it_is_named_from(folder, tmp_path):
    (folder / "sub").mkdir(exist_ok=True)
    for name, cwd in (("../cats.md", folder / "sub"), (str(folder / "cats.md"), tmp_path)):
        found = command("search", "--like", name, "-l", "--threshold", "0", "-i", str(folder / "x.db"), cwd=cwd)
        assert "cats.md" not in paths(found)
    shutil.copy(folder / "x.db", folder / ".index.db")
    found = command("search", "--no-input", "--like", "../cats.md", "-l", "--threshold", "0", cwd=folder / "sub")
    assert "../cat2.md" in paths(found) and "../cats.md" not in paths(found)


def test_what_is_not_in_the_index_may_be_asked_of(folder, tmp_path):
    (tmp_path / "other.txt").write_text("the cat sat on the mat\n")
    found = paths(like(folder, str(tmp_path / "other.txt"), "-l", "--mode", "lexical"))
    assert set(found[:2]) == {"cats.md", "cat2.md"}
    found = paths(
        command(
            "search",
            "--like",
            "cats.md",
            "-m",
            "x",
            "--mode",
            "lexical",
            "-l",
            "cat2.md",
            "sky.txt",
            "cats.md",
            cwd=folder,
        )
    )
    assert found == ["cat2.md", "sky.txt"]


def test_the_query_is_the_mean_of_the_chunks(folder, model):
    """Of a text of one chunk it is the chunk's own vector."""
    (folder / "copy.txt").write_text(FILES["sky.txt"] + "\n")
    hit = json.loads(like(folder, "copy.txt", "--mode", "vector", "--json", "-k", "1").ok().out)
    assert hit["path"] == "sky.txt" and hit["score"] == pytest.approx(1, abs=0.01)


def test_wrong_usage(folder):
    like(folder, "nowhere.txt").fails("nowhere.txt", "No such file")
    like(folder, "-", stdin=b" \n").fails("holds no text")
    like(folder, "-", stdin=b"a\0b").fails("binary")
    like(folder, "cats.md", "--rerank").fails("--like and --rerank exclude each other")
    like(folder, "cats.md", "--queries", "sky.txt").fails("exclude each other")
    shell("search --like - - < cats.md", cwd=folder).fails("--like - and - both want standard input")


def test_the_contract(folder):
    words = "search --like - --threshold 0 -i x.db"
    shell(f"echo the cat | {words} > /dev/full", cwd=folder).fails("cannot write standard output", "No space left")
    shell(f"{words} <&-", cwd=folder).fails("cannot read standard input")
    shell(f"{words} --no-input < /dev/null", cwd=folder).fails("holds no text")
    assert like(folder, "cats.md", "--threshold", "1").status == 1
    assert like(folder, "cats.md", "-q", "--threshold", "0").ok().out == b""
    found = like(folder, "cats.md", "--json", "--threshold", "0", "-k", "1").ok().out
    assert json.loads(found)["path"] == "cat2.md"


def test_a_text_without_words_is_asked_for_by_its_vector(folder):
    assert like(folder, "-", "--mode", "vector", "-k", "1", stdin=b"?? !!\n").status == 0
    assert like(folder, "-", "--mode", "lexical", stdin=b"?? !!\n").status == 1
