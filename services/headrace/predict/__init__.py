"""Vectors to scores: the model, its signature, its file."""
