"""Versions of the numbers that each command makes: part of the key by which a study knows what is done.

Raise a command's version by hand, in the commit that makes it so, when the same flags and the same input give other
numbers than before: another loss, initialisation, order of images, preprocessing, metric or default of a flag. Jobs of
that kind then run again, as does what reads their output. A faster way to the same numbers, a new flag whose default
changes nothing, and other words in a report need no new version.
"""

VERSIONS = {
    "phantom": 1,
    "label-stats": 2,  # frontal rows of CheXpert are those that its column names
    "build-records": 2,  # likewise
    "train-gan": 2,  # fidelity, which chooses the best weights, is measured as compare-sets does
    "generate": 1,
    "pretrain": 1,
    "train-baseline": 3,  # stage 1 sees the centre of the images
    "train-dcan": 3,  # random first weights have seeds of their own; fixmatch aligns its predictions
    "evaluate": 1,
    "compare-sets": 1,
    "audit-privacy": 1,
}
