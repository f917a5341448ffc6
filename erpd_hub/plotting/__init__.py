"""Pictures: the paper's figures for one's own run, those of runs and sweeps, and the small ones in cards."""
