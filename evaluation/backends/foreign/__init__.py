"""Scripts that run under another environment's Python, by path. They import nothing of ours and talk through files and
pipes; `guard.py` is what they share."""
