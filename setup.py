"""Builds the optional CPU kernels; what the package is stands in pyproject.toml.

Without a compiler the install still succeeds: everything then runs on plain MLX, slower.
"""

import sys

from setuptools import setup

try:
    from mlx.extension import CMakeBuild, CMakeExtension
except ImportError:
    CMakeBuild = None


def optional(build):
    """A build_ext that reports a failed build in one line and goes on."""

    class OptionalBuild(build):
        def run(self):
            try:
                super().run()
            except Exception as error:
                print(f"toast: CPU kernels not built, plain MLX is used instead: {error}", file=sys.stderr)

        def copy_extensions_to_source(self):
            pass  # CMakeBuild.run() does it

    return OptionalBuild


if CMakeBuild and sys.platform == "linux":
    setup(
        ext_modules=[CMakeExtension("toast.kernels._ext", "toast/kernels")],
        cmdclass={"build_ext": optional(CMakeBuild)},
    )
else:
    setup()
