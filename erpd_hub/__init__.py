"""erpd-hub: Extreme Region Policy Distillation with every artifact on the Hugging Face Hub."""

__version__ = "0.1.0"
