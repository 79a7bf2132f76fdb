"""Bytes to columns: records become events, or dead letters with a reason."""
