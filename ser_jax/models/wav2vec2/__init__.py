"""wav2vec 2.0. Only `architecture` is light; the others import transformers as they are imported."""
