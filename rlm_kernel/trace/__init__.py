"""What is left of a run: readers of its events."""
