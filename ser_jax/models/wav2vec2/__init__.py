"""wav2vec 2.0. All but `architecture` and `masks` import transformers, and are imported late."""
