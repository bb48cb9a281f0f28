"""Frames of simulations as structures: found, made whole, and read where they are needed."""
