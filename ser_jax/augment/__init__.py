"""The study's four augmentations of clips, on the host or on the device, and those of features."""
