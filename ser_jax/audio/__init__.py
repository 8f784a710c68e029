"""Sound files to waveforms at one rate; nothing else decodes audio.

Read `reading` first, then `decoding` and, of a file's own format, `kinds`, `wav`, `compressed`,
`joined` and `ffmpeg`.
"""
