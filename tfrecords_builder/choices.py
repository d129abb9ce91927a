"""Values that flags and libraries agree on; imports nothing, so that `--help` answers at once."""

# name: module of tfrecords_builder.readers, with `read` and `check_header`
DATASETS = {
    "chexpert": "chexpert",
    "chestxray": "chestxray",
    "folder": "folder",
    "imagefolder": "imagefolder",
    "records": "record_set",
}
FOLDERS = ("folder", "imagefolder")  # those of which a user says what names mean
# By what an image of a folder's table counts as one in which nothing was found: a column; that no finding is positive
# or uncertain; that all findings are negative.
NO_FINDING = ("column", "no_positive", "all_negative")
VIEWS = ("PA", "AP", "any")
SPLIT_POLICIES = ("patient", "official", "image", "kfold", "lists")
SPLIT_FRACTIONS = (0.8, 0.1, 0.1)  # of train, validation and test
ASPECTS = ("stretch", "pad", "crop")  # how an image becomes a square
CONTRASTS = ("none", "max", "percentile")
FAULTS = ("error", "skip")  # what to do about an image that is absent or damaged
UNLABELLED = ("skip", "keep")  # what to do about images without any label
RUNNERS = ("local", "beam")
HOSPITALS = ("a", "b")  # that the phantom simulates
