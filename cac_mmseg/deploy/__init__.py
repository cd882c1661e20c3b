"""How a model becomes a file that runs anywhere.

Rewritten for inference, exported with what a user of it needs, and run. What
reads an exported file (``runtime``) imports neither torch nor mmseg.
"""
