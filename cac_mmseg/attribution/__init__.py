"""Where the context of a prediction came from: shares of positions.

Mathematics on tensors of a model. No files, no pictures: those are drawing's.
"""
