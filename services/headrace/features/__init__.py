"""3. Columns to feature vectors."""
