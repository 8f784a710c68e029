"""Waveforms to features of a corpus on the device, normalised, and batches of them."""
