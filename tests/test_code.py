"""Code by its structure: what is defined where, and chunks that begin with it."""

import json
import sys

import pytest
from command import command

from embed import chunk
from embed.formats import code

pytest.importorskip("tree_sitter")

CASES = {
    "py": (
        "import os\n\nX = 1\n\n# about A\n@dec\nclass A(B):\n    'doc'\n    x = 1\n\n    @property\n    def f(self):\n"
        "        def inner(): pass\n        return 1\n\n    async def g(self): pass\n\nif 1:\n    def h(): pass\n",
        [(4, 15, "A"), (10, 13, "A.f"), (15, 15, "A.g"), (18, 18, "h")],
    ),
    "c": (
        "#include <x.h>\n/* about */\nstatic int *f(int a)\n{\n  return 0;\n}\nstruct s { int a; };\n"
        "struct s g(void) { struct s x; return x; }\n#ifdef A\nint h() { return 1; }\n#endif\n",
        [(1, 5, "f"), (6, 6, "s"), (7, 7, "g"), (9, 9, "h")],
    ),
    "cpp": (
        "namespace n {\ntemplate <class T>\nclass A : B {\n public:\n  int f() const { return 1; }\n  A();\n};\n"
        'int A::g() { return 2; }\n}\nextern "C" { void k() {} }\n',
        [(0, 8, "n"), (1, 6, "n.A"), (4, 4, "n.A.f"), (7, 7, "n.A.g"), (9, 9, "k")],
    ),
    "rs": (
        "/// doc\n#[derive(Debug)]\npub struct P<T> { x: T }\nimpl<T> P<T> {\n    pub fn new() -> Self { P {} }\n}\n"
        "impl Show for P<u8> {\n    fn show(&self) {}\n}\nmod m { fn q() {} }\n",
        [(0, 2, "P"), (3, 5, "P"), (4, 4, "P.new"), (6, 8, "P"), (7, 7, "P.show"), (9, 9, "m"), (9, 9, "m.q")],
    ),
    "go": (
        "package p\n\ntype Server struct { a int }\n\n// Run runs.\nfunc (s *Server) Run() error { return nil }\n"
        "func main() {}\n",
        [(2, 2, "Server"), (4, 5, "Server.Run"), (6, 6, "main")],
    ),
    "java": (
        "class A {\n  int x;\n  /** doc */\n  @Override\n  public void f() { }\n  A() {}\n"
        "  enum E { X; void g() {} }\n}\n",
        [(0, 7, "A"), (2, 4, "A.f"), (5, 5, "A.A"), (6, 6, "A.E"), (6, 6, "A.E.g")],
    ),
    "js": (
        "export class A {\n  f() { }\n  static async g() {}\n}\nexport const h = () => { };\n"
        "function k() {}\nvar z = 3;\n",
        [(0, 3, "A"), (1, 1, "A.f"), (2, 2, "A.g"), (4, 4, "h"), (5, 5, "k")],
    ),
    "ts": (
        "export abstract class A<T> {\n  private f(): void { }\n}\ninterface I { a: string }\nenum E { A }\n"
        "type X = string;\nnamespace N { export function q() {} }\n",
        [(0, 2, "A"), (1, 1, "A.f"), (3, 3, "I"), (4, 4, "E"), (5, 5, "X"), (6, 6, "N"), (6, 6, "N.q")],
    ),
    "tsx": ("export function App() { return <div/>; }\n", [(0, 0, "App")]),
    "rb": (
        "module M\n  class A < B\n    def f; end\n    def self.g\n    end\n  end\nend\n",
        [(0, 6, "M"), (1, 5, "M.A"), (2, 2, "M.A.f"), (3, 4, "M.A.g")],
    ),
    "sh": ("set -e\n# says\nf() {\n  echo hi\n}\nfunction g { :; }\n", [(1, 4, "f"), (5, 5, "g")]),
}


@pytest.mark.parametrize("suffix", CASES)
def test_what_is_defined(suffix):
    text, found = CASES[suffix]
    if not code.is_there(suffix):
        pytest.skip("its grammar is not installed")
    assert code.sections(text, suffix) == found
    # what cannot be parsed is no error
    assert isinstance(code.sections(text[: len(text) // 2] + "\ud7ff{{{(", suffix), list)


def test_names_of_lines():
    found = CASES["py"][1]
    names = [code.name_at(found, *lines) for lines in ((11, 12), (8, 8), (10, 15), (4, 15), (0, 5), (16, 16), (0, 0))]
    assert names == ["A.f", "A", "A", "A", "A", "", ""]


def count(texts):
    return [len(text.split()) for text in texts]


def test_chunks_begin_with_definitions():
    body = "".join(f"        value_{i} = {i} * self.width\n" for i in range(12))
    methods = "".join(f"\n    # says {name}\n    def {name}(self):\n{body}" for name in "fgh")
    text = f"class A:\n    'doc'\n{methods}\nX = A()\n"
    found = code.sections(text, "py")
    pieces = list(chunk.chunk(text, count, 80, suffix="py", known=code.joints(text, found)))
    assert [code.name_at(found, first - 1, last - 1) for first, last, _ in pieces] == ["A", "A.g", "A.h", ""]
    assert [piece[2].split("\n")[0].strip() for piece in pieces[1:]] == ["# says g", "# says h", "X = A()"]
    # small ones share a chunk, and by lines a method is no definition
    assert len(list(chunk.chunk(text, count, 400, suffix="py", known=code.joints(text, found)))) < 4
    assert len(list(chunk.chunk(text, count, 400, suffix="py"))) == 2


def test_a_search_says_which_function(tmp_path, model):
    (tmp_path / "a.py").write_text("class A:\n\n    def giraffe(self):\n        return 'tall'\n")
    (tmp_path / "a.md").write_text("a giraffe\n")
    command("index", "-m", model, ".", "-o", "x.db", cwd=tmp_path).ok()
    found = command("search", "--json", "--mode", "lexical", "giraffe", "x.db", cwd=tmp_path).ok().out.splitlines()
    hits = {hit["path"]: hit for hit in map(json.loads, found)}
    assert hits["a.py"]["section"].startswith("A") and "section" not in hits["a.md"]


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tree_sitter_python", None)
    monkeypatch.setattr(code, "find_spec", lambda name: None)
    assert not code.is_there("py") and code.sections(CASES["py"][0], "py") == []
