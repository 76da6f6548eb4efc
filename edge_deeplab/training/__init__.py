"""Training: data, augmentation, losses, the loop. Needs the extra ``train``."""
