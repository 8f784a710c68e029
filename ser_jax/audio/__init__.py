"""Sound files to waveforms at one rate; nothing else decodes audio."""
