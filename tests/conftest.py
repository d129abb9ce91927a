"""Fixtures that all tests share."""

import os
import pathlib
from collections.abc import Iterator

import pytest

from flags import app

os.environ.setdefault("MPLBACKEND", "Agg")
# The suite has a worker for each core. One thread costs no more processor time, and always adds in the same order.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.hookimpl(tryfirst=True)  # xdist reads the marks in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Workers of pytest-xdist (`--dist=loadgroup`) get whole files, so that what a file trains is trained once.

    The files that look at the tiny study go to one worker, first, because it takes longest.
    """
    with_study = {item.path for item in items if "tiny_study" in item.fixturenames}
    for item in items:
        item.add_marker(pytest.mark.xdist_group("tiny_study" if item.path in with_study else str(item.path)))
    items.sort(key=lambda item: item.path not in with_study)


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """What tests write need not outlive a power failure; those of what is synced set their own `os.fsync`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="session")
def shared_dir() -> pathlib.Path:
    """The folder with the reference data (golden numbers, real radiographs), or a skip."""
    folder = pathlib.Path(os.environ.get("TFCXR_SHARED", ROOT.parent / "shared"))
    if not (folder / "golden").is_dir():
        pytest.skip("the reference data is not here: set TFCXR_SHARED or put a folder `shared` beside the repository")
    return folder


@pytest.fixture(scope="session")
def tiny_study(tmp_path_factory) -> pathlib.Path:
    """A finished study: folder with tiny.flags and workspace/, where it is studies/tiny. Not to be changed."""
    from tests import study_runs
    from tfcxr.commands import study

    folder = tmp_path_factory.mktemp("study")
    path = study_runs.write_definition(folder)
    arguments = [f"--flagfile={path}", f"--workspace={folder / 'workspace'}", "--jobs=2"]
    assert app.run(study.main, study.define_flags, ["study", *arguments]) == 0
    return folder
