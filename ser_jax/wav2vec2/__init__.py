"""wav2vec 2.0: the network, its published weights, its fine-tuning and its pre-training.

Start with `architecture`, `encoder` (with `feature_encoder` and `blocks`) and `classifier`; then
`published` for weights, and `finetune` and `contrastive` for training.
"""
