"""Class-conditional GANs: networks, losses, training, loading and export."""
