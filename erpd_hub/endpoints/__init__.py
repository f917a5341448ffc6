"""OpenAI-compatible servers over HTTP: what sampling from one and asking a judge at one have in common."""
