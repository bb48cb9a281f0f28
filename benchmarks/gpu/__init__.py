"""Does it run on this GPU, is it right, and how fast is it? Ten minutes for the first time, and
after changes."""
