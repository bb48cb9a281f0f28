"""Copies of structures that keep their envelope, and that no image shows."""
