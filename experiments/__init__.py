"""Experiments on jdrop's public API: `python -m experiments NAME`."""
