"""A reader of final answers: text to a small tree, and an exact comparison of two trees; nothing is evaluated as code.

Its opinion is True, False or None (not read). It runs in the grading worker, beside math-verify.
"""
