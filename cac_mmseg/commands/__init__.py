"""``python -m cac_mmseg COMMAND``: a module each, and their options.

A command reads its arguments, asks the other rooms, prints and writes. What
two commands need, or a hook, is in another room.
"""
