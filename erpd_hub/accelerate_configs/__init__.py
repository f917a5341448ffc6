"""Presets for `accelerate launch`: one YAML file a way of sharing the model."""
