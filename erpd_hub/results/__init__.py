"""Evaluation results on the Hub: leaderboard rows, their verification, and what model repositories say of scores."""
