"""The microscope that tests take images with."""

from benchmarks.conventions import microscope as microscope
