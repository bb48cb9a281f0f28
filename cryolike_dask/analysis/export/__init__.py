"""Poses for other programs: STAR files, `.cs` files."""
