"""Particles of known pose, and the demo."""
