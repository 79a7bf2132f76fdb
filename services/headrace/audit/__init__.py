"""The skew audit: features of a sample of entities, thought through again by naive means, beside those that were served."""
