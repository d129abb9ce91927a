"""The weights that a training keeps as its best: a file for each step that was the best so far, while it is needed."""

from tfcxr.classifiers import loading
from tfcxr.classifiers.networks import models
from tfcxr.training import runs


class BestWeights:
    """Best weights of a run of a classifier or an encoder, by the step of their evaluation.

    They count once history.json has a row of their step (see loading.weights_path), so that a kill between the two
    cannot mix the weights of one step with the history of another.
    """

    def __init__(self, run: runs.RunFolder, classifier: models.Encoder):
        """Removes what a kill amid a save has left there."""
        self._run, self._classifier = run, classifier
        for leftover in run.checkpoints.glob(".*.weights.h5"):
            leftover.unlink()

    def steps(self) -> list[int]:
        """Those that there are; 0 stands for the weights of a run that has named none by step."""
        return list(loading.weights_by_step(self._run.path))

    def save(self, step: int) -> None:
        """Keeps the classifier's weights as those of `step`."""
        models.save_weights(self._classifier, loading.weights_of_step(self._run.path, step))

    def remove(self, step: int) -> None:
        """Deletes those of one step."""
        loading.weights_by_step(self._run.path)[step].unlink(missing_ok=True)

    def settle(self) -> None:
        """Of a finished run: leaves the newest only, under the name without a number."""
        found = loading.weights_by_step(self._run.path)
        for step in sorted(found)[:-1]:
            found[step].unlink()
        if found:
            found[max(found)].replace(self._run.path / loading.WEIGHTS)
