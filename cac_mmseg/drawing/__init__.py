"""Pictures and pages, and the reader of the images and labels they show.

Nothing is computed of a model here: that is attribution's.
"""
