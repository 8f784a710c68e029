"""wav2vec 2.0. All modules but `architecture` import transformers; import them where needed."""
