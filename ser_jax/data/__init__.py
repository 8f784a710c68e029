"""Recordings to a corpus in memory: its sources, its store on disk, its labels and its splits."""
