"""How a stage runs: in this process, as replicas, under accelerate, on a cluster."""
