"""wav2vec 2.0: the network, its published weights, its fine-tuning and its pre-training.

Read `architecture`, `encoder` with `feature_encoder` and `blocks`, `classifier`; then `published`
for weights, `finetune` and `contrastive` for training.
"""
