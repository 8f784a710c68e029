"""The study's four augmentations of clips, on the host or on the device, and those of features.

Read `epochs`, which says when what is drawn; then `waveform` (device) with `vocoder` and
`resampler`, `host`, and `spectrogram` and `mixup` inside the step.
"""
