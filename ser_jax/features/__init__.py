"""Waveforms to normalised features of a corpus on the device, and batches of them."""
