"""wav2vec 2.0: the network, its published weights, its fine-tuning and its pre-training."""
