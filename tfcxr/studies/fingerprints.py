"""Digests of files and folders that a study reads from outside of its workspace, by content, not by name."""

import hashlib
import pathlib
import re

# Of a trained model's folder: what decides its output. Pictures, curves and what was measured do not.
_OF_MODELS = re.compile(r"(config|generator|label_combinations)\.json|.*\.(h5|keras|pb|index|npz|pth|data-\d+-of-\d+)")
_SHOWN_ONLY = {"tensorboard", "samples", "evaluations"}
_OF_THE_CALL = {"flags.txt", "result.json", "scorecard.json"}
_OF_TABLES = (".csv", ".csv.gz", ".txt", ".json", ".pb")


class Fingerprints:
    """Reads each file or folder once."""

    def __init__(self) -> None:
        self._known: dict[pathlib.Path, tuple[str, float]] = {}

    def find(self, path: pathlib.Path) -> tuple[str, float]:
        """What a path holds.

        A file counts by its bytes. A trained model (run folder, export or SavedModel) counts by its settings and
        weights. A record set counts by its description and manifest, which hold the digests of its images. Any other
        folder counts by its tables, lists and descriptions, also one folder down: images are too many to read.

        Returns:
            The SHA-256 digest, and when the newest of the files that it is of was changed, in seconds since the epoch.

        Raises:
            OSError: a file cannot be read.
        """
        if path not in self._known:
            self._known[path] = _digest(path)
        return self._known[path]


def _digest(path: pathlib.Path) -> tuple[str, float]:
    digest, newest = hashlib.sha256(), 0.0
    for file in [path] if path.is_file() else _choose_files(path):
        if file != path:
            digest.update(f"{file.relative_to(path)} {file.stat().st_size}\n".encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        newest = max(newest, file.stat().st_mtime)
    return digest.hexdigest(), newest


def _choose_files(folder: pathlib.Path) -> list[pathlib.Path]:
    if (folder / "config.json").is_file() or any(folder.glob("saved_model.*")):
        found = [
            path
            for path in folder.rglob("*")
            if _OF_MODELS.fullmatch(path.name) and not _SHOWN_ONLY & set(path.relative_to(folder).parts)
        ]
    else:
        found = [
            path
            for path in (*folder.iterdir(), *folder.glob("*/*.csv*"))
            if path.name.endswith(_OF_TABLES) and path.name not in _OF_THE_CALL
        ]
    return sorted(path for path in found if path.is_file())
