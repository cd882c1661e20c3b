"""Where the context of a prediction came from."""
