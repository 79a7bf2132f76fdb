"""What runs: wiring only."""
