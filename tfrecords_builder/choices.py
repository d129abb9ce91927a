"""Values that flags and libraries agree on; imports nothing, so that `--help` answers at once."""

# name: module of tfrecords_builder.readers, with `read` and `check_header`
DATASETS = {
    "chexpert": "chexpert",
    "chestxray": "chestxray",
    "folder": "folder",
    "imagefolder": "imagefolder",
    "chexlocalize": "chexlocalize",
    "chexpert_plus": "chexpert_plus",
    "mimic_cxr": "mimic_cxr",
    "padchest": "padchest",
    "rsna_pneumonia": "rsna_pneumonia",
    "siim_acr": "siim_acr",
    "vindr_cxr": "vindr_cxr",
    "records": "record_set",
    "rsna_brain": "rsna_brain",
}
FOLDERS = ("folder", "imagefolder")  # those of which a user says what names mean
# By what an image of a folder's table counts as one in which nothing was found: a column; that no finding is positive
# or uncertain; that all findings are negative.
NO_FINDING = ("column", "no_positive", "all_negative")
ANNOTATED = ("vindr_cxr",)  # data sets with the labels of several readers for each image
AGREEMENTS = ("majority", "any", "all")  # how many of them must see a finding
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
