"""The commands: parsed, called, printed."""
