"""Names of features that need no path, and of measures; imports no TensorFlow."""

from tfcxr.classifiers import choices

PIXELS = "pixels"  # of nearest neighbours only: too many for a covariance
PIXELS_PCA = "pixels_pca64"
TEXTURE = "texture"
INCEPTION = "inception"
WITHOUT_PATH = (PIXELS_PCA, TEXTURE, INCEPTION, choices.EFFICIENTNET_LITE0)
WITHOUT_FIT = (PIXELS, INCEPTION, choices.EFFICIENTNET_LITE0)  # what nearest neighbours are looked for in

METRICS = ("fid", "kid", "precision", "recall", "density", "coverage")


def metric_name(measure: str, features: str) -> str:
    """`fid/pixels_pca64`: a measure's name with that of its features."""
    return f"{measure}/{features}"
