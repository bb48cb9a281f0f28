"""Structures into templates: projections on the Fourier polar grid."""
