"""Fixtures that all tests share."""

import os
import pathlib

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "Agg")

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_dir() -> pathlib.Path:
    """The folder with the reference data (golden numbers, real radiographs), or a skip."""
    folder = pathlib.Path(os.environ.get("TFCXR_SHARED", ROOT.parent / "shared"))
    if not (folder / "golden").is_dir():
        pytest.skip("the reference data is not here: set TFCXR_SHARED or put a folder `shared` beside the repository")
    return folder
