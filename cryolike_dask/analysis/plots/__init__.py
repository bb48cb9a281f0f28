"""Figures: of stacks, poses, structures and particles."""
