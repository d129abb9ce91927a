"""The phantom: a chest-radiograph simulator (3-D anatomy, findings, X-ray projection, two hospitals)."""
