"""A trained run put to use: measured on recordings, or asked about files."""
