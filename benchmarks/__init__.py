"""How fast and how right: `python -m benchmarks`, and programs of their own beside it."""
