"""What is for other programs than the worker's own."""
