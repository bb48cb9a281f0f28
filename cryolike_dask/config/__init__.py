"""A run described by one file: what it may say, reading it, and running it."""
