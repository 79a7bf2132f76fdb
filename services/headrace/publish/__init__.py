"""Predictions out: what is sent, and the transaction that makes it definite together with the offsets it was made from."""
