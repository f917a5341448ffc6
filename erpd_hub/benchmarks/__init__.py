"""Measurements behind the claims of the README and the docs: each prints a ratio measured in one run."""
