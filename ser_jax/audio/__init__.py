"""Sound files to waveforms at one rate; nothing else decodes audio.

Read `reading` first, then `decoding`, and for the file formats `kinds`, `wav`, `compressed`,
`joined` and `ffmpeg`.
"""
