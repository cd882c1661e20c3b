"""Where pretrained weights of a name come from, and if they can be had."""
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.runner import checkpoint as loaders

SECONDS = 5  # to wait for a host
# mmengine's lists of the names after a prefix
ZOOS = {
    'open-mmlab://': 'get_external_models',
    'openmmlab://': 'get_external_models',
    'mmcls://': 'get_mmcls_models',
    'torchvision://': 'get_torchvision_models',
    'modelzoo://': 'get_torchvision_models',
}


class Source(NamedTuple):
    """A file or a URL; ``error`` says why it cannot be loaded, or is ''."""
    place: str
    error: str = ''


def find_weights(name: str) -> Source:
    """Find out whether weights can be loaded, without loading them.

    Args:
        name: As of ``model.pretrained``: a file, a URL, or a name such as
            'open-mmlab://resnet50_v1c'.
    """
    url = name
    for prefix, models in ZOOS.items():
        if name.startswith(prefix):
            url = getattr(loaders, models)().get(name.removeprefix(prefix), '')
            if not url:
                return Source(name, 'is no name that mmengine knows')
    if not url.startswith(('http://', 'https://')):
        # other backends than files are mmengine's
        found = '://' in url or os.path.isfile(url)
        return Source(url, '' if found else 'is not a file')
    cached = Path(torch.hub.get_dir(), 'checkpoints', url.split('/')[-1])
    if cached.is_file():
        return Source(str(cached))
    try:
        request = urllib.request.Request(url, method='HEAD')
        with urllib.request.urlopen(request, timeout=SECONDS):
            return Source(url)
    except (urllib.error.URLError, OSError) as error:
        return Source(url, f'does not answer: {error}')
