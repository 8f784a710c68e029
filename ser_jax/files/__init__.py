"""Files written whole or not at all, and why one could not be read or written."""
