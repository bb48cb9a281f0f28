"""Search where the mass is: coarse to fine."""
