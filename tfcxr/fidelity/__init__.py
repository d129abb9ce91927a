"""How much a set of images resembles another: features, statistics and distances.

A figure depends on the features as much as on the images, so every metric's name ends in the features' name
(`fid/pixels_pca64`, `kid/inception`); figures of different features are never compared.
"""
