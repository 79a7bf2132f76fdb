"""Is what was promised true? The promise checked from topics, store and definitions alone, on anybody's deployment."""
