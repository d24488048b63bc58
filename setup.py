"""Builds the CPU kernels; what the package is stands in pyproject.toml.

Where there is no C++ compiler the package is built without them, and says so: everything then runs on plain MLX,
slower. TOAST_KERNELS=off asks for that, TOAST_KERNELS=require makes it an error. A build that fails is an error always.
"""

import os
import shutil
import sys
import warnings

from setuptools import setup

COMPILERS = ("c++", "g++", "clang++")
MISSING = (
    "CPU kernels not built: no C++ compiler (looked for {}). Commands will run on plain MLX, 15 to 40 times slower. "
    "Install a compiler (Debian, Ubuntu: apt install g++), then run: "
    "pip install --force-reinstall --no-cache-dir toast-filters"
)


def compiler(env: dict[str, str]) -> str | None:
    """The C++ compiler that CMake would take, None without one."""
    named = [env["CXX"].split()[0]] if env.get("CXX", "").strip() else COMPILERS
    return next(filter(None, (shutil.which(name, path=env.get("PATH")) for name in named)), None)


def wants_kernels(env: dict[str, str], platform: str = sys.platform) -> bool:
    """Whether to build the kernels; warns where they cannot be, SystemExit where they must be."""
    asked = env.get("TOAST_KERNELS", "")
    if platform != "linux" or asked == "off":
        return False
    if compiler(env):
        return True
    missing = MISSING.format(env.get("CXX") or ", ".join(COMPILERS))
    if asked == "require":
        raise SystemExit(f"toast: {missing}")
    warnings.warn(f"toast: {missing}", stacklevel=1)
    return False


def kernels() -> dict:
    """What setup() needs to build them."""
    from mlx.extension import CMakeBuild, CMakeExtension

    class Build(CMakeBuild):
        def copy_extensions_to_source(self) -> None:
            pass  # CMakeBuild.run() does it

    return {
        "ext_modules": [CMakeExtension("toast.kernels._ext", "toast/kernels")],
        "cmdclass": {"build_ext": Build},
    }


if __name__ == "__main__":
    setup(**kernels() if wants_kernels(dict(os.environ)) else {})
