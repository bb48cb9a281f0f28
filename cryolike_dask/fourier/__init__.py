"""Fourier transforms at points that lie on no grid: windows, and grids to interpolate in; torch."""
