"""Whether synthetic images give away the images that their generator learned from."""
