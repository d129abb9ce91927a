"""Writes setup.cfg's dependencies as requirement files, which is what deptry reads: `make lint`.

requirements.txt has those of the package and of its extras, requirements-test.txt those of the extras for developing.
"""

import pathlib
import sys

from setuptools.config import setupcfg

_DEVELOPING = ("test", "docs", "peers")


def main(folder: str) -> None:
    """Writes both files to `folder`."""
    options = setupcfg.read_configuration("setup.cfg")["options"]
    runtime, developing = list(options["install_requires"]), list[str]()
    for extra, requirements in options["extras_require"].items():
        (developing if extra in _DEVELOPING else runtime).extend(requirements)
    pathlib.Path(folder, "requirements.txt").write_text("\n".join(runtime))
    pathlib.Path(folder, "requirements-test.txt").write_text("\n".join(developing))


if __name__ == "__main__":
    main(sys.argv[1])
