"""Builds the CPU kernels, the reader of vocabularies and the launcher; what the package is stands in pyproject.toml.

Where there is no C++ compiler the package is built without kernels, and says so: everything then runs on plain MLX,
slower, and the tokenizers library reads vocabularies. TOAST_KERNELS=off asks for that, TOAST_KERNELS=require makes it
an error. A build that fails is an error always.

The same for a C compiler, the launcher (toast/launcher) and TOAST_LAUNCHER: without it the commands are Python scripts.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import warnings
from typing import Any

from setuptools import Distribution, setup  # before distutils, which it brings where Python has none

# isort: split
from distutils.command.build_scripts import build_scripts

COMPILERS = {"CXX": ("c++", "g++", "clang++"), "CC": ("cc", "gcc", "clang")}
MISSING = (
    "CPU kernels not built: no C++ compiler (looked for {}). Commands will run on plain MLX, 15 to 40 times slower. "
    "Install a compiler (Debian, Ubuntu: apt install g++), then run: "
    "pip install --force-reinstall --no-deps --no-cache-dir --no-binary toast-filters toast-filters"
)
LAUNCHER = os.path.join("toast", "launcher", "launcher.c")
SHARED = [os.path.join("toast", "launcher", name) for name in ("client.c", "request.c")]  # the same for all commands
HEADERS = [os.path.join("toast", "launcher", "client.h")]
PYTHON = os.path.join("toast", "launcher", "toast-python")


def compiler(env: dict[str, str], variable: str = "CXX") -> str | None:
    """The C++ compiler that CMake would take, or the C compiler (CC); None without one.

    SystemExit where one is named that is not here: a slip is told, not built around."""
    asked = env.get(variable, "").split()[:1]
    found = (shutil.which(name, path=env.get("PATH")) for name in asked or COMPILERS[variable])
    compiler = next(filter(None, found), None)
    if asked and not compiler:
        raise SystemExit(f"toast: {variable}={env[variable]}: there is no compiler {asked[0]}")
    return compiler


def wants_kernels(env: dict[str, str], platform: str = sys.platform) -> bool:
    """Whether to build the kernels; warns where they cannot be, SystemExit where they must be."""
    asked = env.get("TOAST_KERNELS", "")
    if platform != "linux" or asked == "off":
        return False
    if compiler(env):
        return True
    missing = MISSING.format(", ".join(COMPILERS["CXX"]))
    if asked == "require":
        raise SystemExit(f"toast: {missing}")
    warnings.warn(f"toast: {missing}", stacklevel=1)
    return False


def wants_launcher(env: dict[str, str]) -> bool:
    """Whether to build the launcher; SystemExit where it must be built and cannot be."""
    asked = env.get("TOAST_LAUNCHER", "")
    if os.name != "posix" or asked == "off":
        return False
    if compiler(env, "CC"):
        return True
    if asked == "require":
        raise SystemExit("toast: launcher not built: no C compiler (looked for {})".format(", ".join(COMPILERS["CC"])))
    return False


def kernels() -> dict[str, Any]:
    """What setup() needs to build them."""
    from mlx.extension import CMakeBuild, CMakeExtension

    class Build(CMakeBuild):
        def copy_extensions_to_source(self) -> None:
            pass  # CMakeBuild.run() does it

    return {
        "ext_modules": [
            CMakeExtension("toast.kernels._ext", "toast/kernels"),
            CMakeExtension("toast.vocabulary._ext", "toast/vocabulary"),
        ],
        "cmdclass": {"build_ext": Build},
    }


class Ours(Distribution):
    """With manual pages and completions in an editable install, too."""

    def has_data(self) -> bool:
        return self.has_data_files()  # editable_wheel asks by a name that distutils has no method of


class Launched(Ours):
    """The commands that pyproject.toml names, as executables in place of scripts for Python."""

    launched: list[str]  # "embed = embed.cli:embed"

    def parse_config_files(self, *args: Any, **options: Any) -> None:
        super().parse_config_files(*args, **options)
        self.launched = self.entry_points.pop("console_scripts", [])
        self.scripts = [PYTHON]

    def has_ext_modules(self) -> bool:
        return True  # the wheel is for one platform


class BuildLauncher(build_scripts):
    """Compiles an executable for each command; installers keep what is no text as it is."""

    distribution: Launched

    def run(self) -> None:
        super().run()
        env = dict(os.environ)
        with tempfile.TemporaryDirectory() as folder:
            objects = [os.path.join(folder, f"{os.path.basename(source)}.o") for source in SHARED]
            for source, out in zip(SHARED, objects, strict=True):
                self.compile(env, out, "-c", source, VERSION=self.distribution.get_version())
            for line in self.distribution.launched:
                name, module, function = line.replace("=", " ").replace(":", " ").split()
                words = [LAUNCHER, *objects, *shlex.split(env.get("LDFLAGS", ""))]
                out = os.path.join(self.build_dir, name)
                self.compile(env, out, *words, COMMAND=name, MODULE=module, FUNCTION=function)

    def compile(self, env: dict[str, str], out: str, *words: str, **values: str) -> None:
        """TOAST_LAUNCHER has been decided: a compiler that fails ends the build."""
        start = shlex.split(env.get("CC", "")) or [str(compiler(env, "CC"))]
        flags = ["-O2", "-Wall", *shlex.split(env.get("CFLAGS", "")), "-o", out]
        defined = [f'-D{key}="{value}"' for key, value in values.items()]
        subprocess.run([*start, *flags, *defined, *words], check=True)

    def get_source_files(self) -> list[str]:
        return [*super().get_source_files(), LAUNCHER, *SHARED, *HEADERS]


if __name__ == "__main__":
    built: dict[str, Any] = {"distclass": Ours}
    if wants_kernels(dict(os.environ)):
        built |= kernels()
    if wants_launcher(dict(os.environ)):
        built["distclass"] = Launched
        built["cmdclass"] = {**built.get("cmdclass", {}), "build_scripts": BuildLauncher}
    setup(**built)
