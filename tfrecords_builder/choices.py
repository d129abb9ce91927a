"""Values that flags and libraries agree on; imports only what is quick, so that `--help` answers at once."""

from typing import NamedTuple


class DataSet(NamedTuple):
    """What is particular to a data set.

    Attributes:
        module: of tfrecords_builder.readers, with `read` and `check_header`.
        label_set: that it has where the user names none; "": of record sets, their own.
        window: of CT, the one of CT_WINDOWS by which it is read where the user names none; "": it is no CT.
        options: the flags of build-records and label-stats that are for this data set only; `read` takes them.
    """

    module: str
    label_set: str = "chexpert14"
    window: str = ""
    options: tuple[str, ...] = ()


DATASETS = {
    "chexpert": DataSet("chexpert"),
    "chestxray": DataSet("chestxray"),
    "folder": DataSet("folder"),
    "imagefolder": DataSet("imagefolder"),
    "chexlocalize": DataSet("chexlocalize"),
    "chexpert_plus": DataSet("chexpert_plus"),
    "mimic_cxr": DataSet("mimic_cxr"),
    "padchest": DataSet("padchest", options=("labelled_by",)),
    "rsna_pneumonia": DataSet("rsna_pneumonia"),
    "siim_acr": DataSet("siim_acr"),
    "vindr_cxr": DataSet("vindr_cxr", options=("agreement",)),
    "records": DataSet("record_set", label_set=""),
    "rsna_brain": DataSet("rsna_brain", label_set="brain6", window="brain"),
}
FOLDERS = ("folder", "imagefolder")  # those of which a user says what names mean
# By what an image of a folder's table counts as one in which nothing was found: a column; that no finding is positive
# or uncertain; that all findings are negative.
NO_FINDING = ("column", "no_positive", "all_negative")
AGREEMENTS = ("majority", "any", "all")  # how many of an image's readers must see a finding; the first: the default
LABELLED_BY = ("anyone", "physicians")  # whose labels of reports count; the first: the default
VIEWS = ("PA", "AP", "any")
SPLIT_POLICIES = ("patient", "official", "image", "kfold", "lists")
SPLIT_FRACTIONS = (0.8, 0.1, 0.1)  # of train, validation and test
ASPECTS = ("stretch", "pad", "crop")  # how an image becomes a square
# Of CT in Hounsfield units: centre and width.
CT_WINDOWS = {"brain": (40.0, 80.0), "subdural": (80.0, 200.0), "bone": (600.0, 2800.0)}
CONTRASTS = ("none", "max", "percentile")
FAULTS = ("error", "skip")  # what to do about an image that is absent or damaged
UNLABELLED = ("skip", "keep")  # what to do about images without any label
RUNNERS = ("local", "beam")
BODIES = ("chest", "head")  # of which the phantom makes images
HOSPITALS = ("a", "b")  # that the phantom simulates
