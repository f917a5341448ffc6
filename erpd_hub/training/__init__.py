"""Training: both stages are one trainer with another loss."""
