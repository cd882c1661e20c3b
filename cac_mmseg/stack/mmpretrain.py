"""For ``custom_imports`` of a config whose backbone is mmpretrain's.

mmengine would say no more than that it failed to import what it was told to.
"""
try:
    import mmpretrain.models  # noqa: F401
except ImportError as error:
    # mmengine hides an ImportError
    raise RuntimeError(
        'this config needs mmpretrain, which cannot be imported '
        f'({error}): `pip install onedl-mmpretrain` on the OneDL stack, '
        '`mim install mmpretrain` on the original one') from error
