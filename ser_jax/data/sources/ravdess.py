"""The words of RAVDESS, in the order of its numbers."""

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
INTENSITIES = ("normal", "strong")
STATEMENTS = ("kids", "dogs")  # "Kids are talking by the door", "Dogs are sitting by the door"

PUBLISHED_COPIES = {"03-01-03-01-02-02-07": "03-01-03-01-02-01-07"}
"""Clips that RAVDESS itself publishes twice: the study's 1,440 clips count both, so both stay."""
