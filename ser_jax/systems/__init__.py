"""What a run can train: networks, wav2vec 2.0, SVM and HMM, by name."""
