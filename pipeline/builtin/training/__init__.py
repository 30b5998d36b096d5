"""How the built-in models were made: ``python -m pipeline.builtin.training MODEL OUT``."""
