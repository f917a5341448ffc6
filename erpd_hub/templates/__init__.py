"""Templates of files that the command line prints."""
