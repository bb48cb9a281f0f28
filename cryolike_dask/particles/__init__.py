"""Particle images into image stacks on the Fourier polar grid."""
