"""A run, from open inputs to written outputs; its plan before, and its check afterwards."""
