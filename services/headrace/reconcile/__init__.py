"""6. Outcomes back."""
