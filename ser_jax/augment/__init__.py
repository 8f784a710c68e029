"""The study's four augmentations of clips, on the host or on the device, and those of features.

Read `epochs` first, which schedules the draws; then `waveform` (device) with `vocoder` and
`resampler`, `host`, and `spectrogram` and `mixup`, which run inside the step.
"""
