"""Sampling: one interface, several engines, the same records."""
