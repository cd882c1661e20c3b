"""What measures the package and compares it with others, beside it."""
