"""What several artifacts say together: sweeps, the paper's claims, advice on a run."""
