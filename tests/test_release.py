"""What a user gets from an index: an sdist with its kernels, a wheel built from it, commands that start."""

import filecmp
import glob
import os
import runpy
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from importlib import metadata

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OURS = ("toast", "embed", "rerank")
LENT = ("mlx", "mlx-cpu", "mlx-metal", "build", "packaging", "pyproject_hooks")
TOPS = ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")
setup = runpy.run_path(os.path.join(ROOT, "setup.py"))
needs_compiler = pytest.mark.skipif(
    sys.platform != "linux" or not setup["compiler"](dict(os.environ)),
    reason="kernels are built on Linux, by a compiler",
)
needs_c_compiler = pytest.mark.skipif(not setup["compiler"](dict(os.environ), "CC"), reason="the launcher is C")


def run(*words, cwd, **env):
    ran = subprocess.run(words, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True)
    assert ran.returncode == 0, f"{words}\n{ran.stdout[-2000:]}\n{ran.stderr[-4000:]}"
    return ran


def sources(folder, *endings):
    for parent, _, names in os.walk(os.path.join(ROOT, folder)):
        for name in names:
            if name.endswith(endings):
                yield os.path.relpath(os.path.join(parent, name), ROOT)


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    """The Python of an environment with what a build asks for, and no more: made once, as isolation makes one for each
    build. MLX and what starts a build are links to this environment's."""
    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as file:
        requires = tomllib.load(file)["build-system"]["requires"]
    folder = tmp_path_factory.mktemp("builder")
    python = folder / "bin/python"
    run(sys.executable, "-m", "venv", "--without-pip", str(folder), cwd=folder)
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install"]
    run(*pip, *(name for name in requires if not name.startswith("mlx")), cwd=folder)
    for name in LENT:
        link(name, purelib(python))
    return str(python)


def link(name, folder):
    """A folder of packages has a distribution of this environment, if that is here (MLX's parts differ by platform)."""
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return
    for top in {file.parts[0] for file in found.files} - {"..", "__pycache__"}:
        if not os.path.lexists(os.path.join(folder, top)):
            os.symlink(found.locate_file(top), os.path.join(folder, top))


def build(folder, out, builder, kind, **env):
    words = [builder, "-m", "build", "--no-isolation", kind, "-o", str(out), "."]
    env = {**os.environ, "PATH": f"{os.path.dirname(builder)}:{os.environ['PATH']}", **env}
    return subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True)


@pytest.fixture(scope="module")
def sdist(builder, tmp_path_factory):
    """The folder that the sdist of a clean copy unpacks to."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("sdist")
    for name in (*OURS, "share"):
        shutil.copytree(os.path.join(ROOT, name), copy / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for name in TOPS:
        shutil.copy(os.path.join(ROOT, name), copy / name)
    ran = build(copy, out, builder, "--sdist")
    assert ran.returncode == 0, ran
    [archive] = out.iterdir()
    with tarfile.open(archive) as tar:
        tar.extractall(out, filter="data")
    return out / archive.name.removesuffix(".tar.gz")


def wheel_of(folder, out, builder, **env):
    ran = build(folder, out, builder, "--wheel", **env)
    assert ran.returncode == 0, f"{ran.stdout[-2000:]}\n{ran.stderr[-4000:]}"
    [wheel] = out.iterdir()
    return wheel


def purelib(python):
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return run(python, "-c", code, cwd=ROOT).stdout.strip()


def lend(packages, python):
    """An environment has the packages of a folder beside its own, which come first; nothing else was lent to it."""
    with open(os.path.join(purelib(python), "dependencies.pth"), "w") as file:
        file.write(packages + "\n")


def environment_with(fresh, builder, *words, **env):
    """Installs something into a new environment, which has this one's dependencies but not its editable install."""
    run(sys.executable, "-m", "venv", "--without-pip", str(fresh), cwd=fresh.parent)
    bin = fresh / "bin"
    lend(purelib(builder), bin / "python")  # what builds an editable install
    pip = [sys.executable, "-m", "pip", "--python", str(bin / "python"), "install", "--no-deps", "--no-build-isolation"]
    run(*pip, *words, cwd=fresh.parent, **env)
    lend(sysconfig.get_path("purelib"), bin / "python")
    return bin


def test_the_kernels_are_built_against_the_mlx_that_runs_them():
    """The builder's MLX is lent, whatever a build asks for."""
    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as file:
        settings = tomllib.load(file)
    runs, built = settings["project"]["dependencies"], settings["build-system"]["requires"]
    pins = [[name for name in names if name.startswith(("mlx=", "mlx["))] for names in (runs, built)]
    assert pins[0] == pins[1] and len(pins[0]) == 2


def test_the_sdist_has_the_kernels(sdist):
    wanted = [*sources("toast/kernels", ".cpp", ".h", ".def", ".txt", ".py", ".pyi")]
    assert len(wanted) > 50
    wanted += sources("toast/vocabulary", ".cpp", ".h", ".txt", ".py", ".pyi")
    wanted += [*sources("toast/launcher", "launcher.c", "toast-python"), *sources("share", "")]
    found = filecmp.cmpfiles(ROOT, sdist, wanted, shallow=False)
    assert found[1:] == ([], []), "what differs, and what is missing"


# configures as ever; in place of compiling it takes what was compiled for this environment
CMAKE = """#!/bin/sh
[ "$1" = --build ] || exec {bin}/cmake "$@"
folder=$(basename "$PWD" | sed 's/[.]_ext$//; s|[.]|/|g')
cp {root}/$folder/_ext.*.so "$(sed -n 's/^CMAKE_LIBRARY_OUTPUT_DIRECTORY:[A-Z]*=//p' CMakeCache.txt)"
"""


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("compiled", ["before", pytest.param("here", marks=pytest.mark.long)])
def test_a_wheel_from_the_sdist_has_kernels_that_run(sdist, builder, tmp_path, compiled):
    """`make install` has compiled the same sources, as the test above says, by the same setup.py: the usual run takes
    its extensions, and `make test-all` compiles those of the sdist (200 seconds of a processor)."""
    env = {"TOAST_KERNELS": "require"}
    if compiled == "before":
        if not glob.glob(os.path.join(ROOT, "toast/kernels/_ext.*.so")):
            pytest.skip("installed without kernels")
        (tmp_path / "cmake").write_text(CMAKE.format(bin=os.path.dirname(builder), root=ROOT))
        (tmp_path / "cmake").chmod(0o755)
        env["PATH"] = f"{tmp_path}:{os.path.dirname(builder)}:{os.environ['PATH']}"
    wheel = wheel_of(sdist, tmp_path / "wheel", builder, **env)
    python = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    assert wheel.name.split("-")[2:4] == [python, python], "its extension is for one Python"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    wanted = {
        path for folder in OURS for path in sources(folder, ".py", "idf.txt", "function_words.txt", "codebooks.txt")
    }
    assert {name for name in names if name.endswith((".py", ".txt")) and "dist-info" not in name} == wanted
    for folder in ("kernels", "vocabulary"):
        assert sum(name.startswith(f"toast/{folder}/_ext.") and name.endswith(".so") for name in names) == 1
    assert any(name.endswith("licenses/LICENSE") for name in names)
    bin = environment_with(tmp_path / "fresh", builder, "--no-index", str(wheel))
    code = (
        "import toast, mlx.core; from toast import kernels; print(toast.__file__, kernels.install(), kernels.variant())"
    )
    run(bin / "python", "-c", "import toast.vocabulary._ext", cwd=tmp_path)
    place, chosen, variant = run(bin / "python", "-c", code, cwd=tmp_path).stdout.split()
    assert place.startswith(str(tmp_path / "fresh")) and chosen == variant != "off"
    assert run(bin / "toast", "--version", cwd=tmp_path).stdout.startswith("toast (toast ")


@pytest.mark.slow
def test_without_a_compiler_the_wheel_is_pure(sdist, builder, tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "env", "uname"):
        os.symlink(shutil.which(name), tools / name)
    wheel = wheel_of(sdist, tmp_path / "wheel", builder, PATH=str(tools), CXX="")
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        [entries] = [archive.read(name) for name in archive.namelist() if name.endswith("entry_points.txt")]
        assert b"embed = embed.cli:embed" in entries
        data = {name.partition(".data/data/")[2] for name in archive.namelist() if ".data/" in name}
    assert data == set(sources("share", "")), "manual pages and completions, and nothing else"


def assert_executables(bin, folder):
    """All commands are there and are no scripts; a directory as standard input, which Python refuses, is no matter."""
    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as file:
        names = tomllib.load(file)["project"]["scripts"]
    for name in names:
        with open(bin / name, "rb") as file:
            assert file.read(2) != b"#!", name
        assert run(bin / name, "--version", cwd=folder).stdout.split()[1] == "(toast"
    root = os.open("/", os.O_RDONLY)
    ran = subprocess.run([bin / "search", "q"], stdin=root, cwd=folder, capture_output=True, text=True)
    os.close(root)
    assert (ran.returncode, ran.stderr) == (2, "search: cannot read standard input: Is a directory\n")
    ran = run(bin / "toast-python", "-c", "import sys; print(sys.executable)", cwd=folder)
    assert ran.stdout.startswith(str(bin))
    for path in sources("share", ""):
        assert os.path.getsize(bin.parent / path) == os.path.getsize(os.path.join(ROOT, path)), path


@pytest.mark.slow
@needs_c_compiler
def test_a_wheel_has_the_commands_as_executables(sdist, builder, tmp_path):
    wheel = wheel_of(sdist, tmp_path / "wheel", builder, TOAST_KERNELS="off", TOAST_LAUNCHER="require")
    assert not wheel.name.endswith("-any.whl"), "its executables are for one machine"
    bin = environment_with(tmp_path / "fresh", builder, "--no-index", str(wheel))
    assert_executables(bin, tmp_path)
    os.rename(tmp_path / "fresh", tmp_path / "moved")
    run(tmp_path / "moved" / "bin" / "embed", "--version", cwd=tmp_path)


@pytest.mark.slow
@needs_c_compiler
@pytest.mark.parametrize("mode", ["compat", *(pytest.param(x, marks=pytest.mark.long) for x in ("lenient", "strict"))])
def test_an_editable_install_has_them_too(sdist, builder, tmp_path, mode):
    copy = shutil.copytree(sdist, tmp_path / "copy")
    words = ["--editable", str(copy), "--config-settings", f"editable_mode={mode}"]
    bin = environment_with(tmp_path / "fresh", builder, *words, TOAST_KERNELS="off", TOAST_LAUNCHER="require")
    assert_executables(bin, tmp_path)


def test_who_gets_the_launcher():
    wants, here = setup["wants_launcher"], {"PATH": os.environ["PATH"], "CC": "sh"}  # any program that is there
    assert wants(here) and wants({**here, "TOAST_LAUNCHER": "require"})
    assert not wants({**here, "TOAST_LAUNCHER": "off"}) and not wants({"PATH": "/nonexistent"})
    with pytest.raises(SystemExit, match="no C compiler"):
        wants({"PATH": "/nonexistent", "TOAST_LAUNCHER": "require"})


def test_who_gets_kernels(monkeypatch):
    wants, here = setup["wants_kernels"], {"PATH": os.environ["PATH"]}
    with pytest.warns(UserWarning, match="no C\\+\\+ compiler .*apt install"):
        assert not wants({"PATH": "/nonexistent"}, "linux")
    with pytest.raises(SystemExit, match="no C\\+\\+ compiler"):
        wants({"PATH": "/nonexistent", "TOAST_KERNELS": "require"}, "linux")
    with pytest.raises(SystemExit, match="CXX=nocxx -O2: there is no compiler nocxx"):
        wants({**here, "CXX": "nocxx -O2"}, "linux")
    assert not wants({**here, "TOAST_KERNELS": "off"}, "linux") and not wants(here, "darwin")


@needs_compiler
def test_a_build_that_fails_is_an_error(sdist, builder, tmp_path):
    """Not a package that is slow in silence."""
    broken = tmp_path / "broken"
    shutil.copytree(sdist, broken)
    (broken / "toast/kernels/CMakeLists.txt").write_text("message(FATAL_ERROR broken)")
    ran = build(broken, tmp_path / "out", builder, "--wheel")
    assert ran.returncode and "broken" in ran.stdout + ran.stderr and not list(tmp_path.glob("out/*.whl"))
