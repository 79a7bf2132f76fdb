"""Records in: a member of a consumer group that reads committed records, and plain readers."""
