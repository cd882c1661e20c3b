"""Which CaCHead takes the place of the decode head of a config."""
from typing import Callable, List, NamedTuple, Optional, Tuple

from mmengine.config import Config

from ...errors import UserError
from ...stack.decode_heads import decode_heads
from ...stack.feature_maps import Maps, Refused, feature_maps

# what CaCHead, as every BaseDecodeHead, takes from its predecessor
KEPT = ('num_classes', 'out_channels', 'threshold', 'dropout_ratio',
        'conv_cfg', 'norm_cfg', 'act_cfg', 'loss_decode', 'ignore_index',
        'sampler', 'align_corners')
STRIDE = 8  # of the paper's backbones


class Adoption(NamedTuple):
    """What a new config says.

    Args:
        replaced: Configs of the decode heads that go.
        head: Config of the CaCHead.
        auxiliary: Config of a head that becomes auxiliary, or None.
        notes: What was decided, and why: a line each.
        maps: Channels and stride of each feature map that heads get.
    """
    replaced: List[dict]
    head: dict
    auxiliary: Optional[dict]
    notes: List[str]
    maps: Maps


def derive(config: Config,
           channels: Optional[int] = None,
           num_heads: Optional[int] = None,
           read_maps: Callable[[dict], Maps] = feature_maps) -> Adoption:
    """Derive a CaCHead for a config that was read from a file.

    Args:
        config: Of a model with a backbone and a decode head.
        channels: C of the CaCHead, or None for that of the head it replaces.
        num_heads: Its CaC modules, or None for its default.
        read_maps: Returns the maps of a model's config.

    Raises:
        Refused: If the model cannot have a CaCHead, with the reason.
        ValueError: If its backbone does not run.
    """
    heads = decode_heads(config.model)
    old = heads[-1]
    if old['type'] == 'CaCHead' and old.get('reweighting',
                                            'CaCModule') == 'CaCModule':
        raise Refused('its decode head is a CaCHead already')
    notes = []
    if old['type'] == 'IterativeDecodeHead':
        old = old['kernel_generate_head']
        notes.append(f'takes after the {old["type"]} that starts the '
                     'iterations, and does without them')
    maps = read_maps(config.model)
    reads, why = choose_maps(old, maps)
    notes += why
    head = dict(type='CaCHead', **reads, channels=channels or old['channels'])
    if num_heads is not None:
        head['num_heads'] = num_heads
    head.update((key, old[key]) for key in KEPT if key in old)
    notes += fit_norm(head, old, config)
    gone = [key for key in old if key.startswith('loss') and key not in KEPT]
    if gone:
        notes.append(f'{", ".join(gone)} is gone: the {old["type"]} has an '
                     'output for it, CaCHead has none')
    auxiliary = None
    if len(heads) > 1:
        auxiliary = heads[0]
        notes.append(f'the {auxiliary["type"]} that came first in the cascade '
                     'is an auxiliary head now, with its loss: it costs '
                     'nothing in a test')
    return Adoption(heads, head, auxiliary, notes, maps)


def choose_maps(old: dict, maps: Maps) -> Tuple[dict, List[str]]:
    """Return in_channels, in_index and input_transform, and why.

    A head of one map, and one that concatenates, give their inputs. Of several
    maps that a head used one by one, those of output stride 8, the paper's,
    and above are resized and concatenated; of maps of one size, the last is
    the deepest, and read alone.
    """
    index = old.get('in_index', -1)
    indices = list(index) if isinstance(index, (list, tuple)) else [index]
    out_of_range = [i for i in indices if not -len(maps) <= i < len(maps)]
    if out_of_range:
        raise UserError(f'in_index of the {old["type"]} is {index}, but '
                        f'there are {len(maps)} feature maps')
    strides = [maps[i][1] for i in indices]
    why = []
    if old.get('input_transform') == 'resize_concat':
        pass
    elif len(set(strides)) == 1 < len(indices):
        indices = indices[-1:]
        why = [
            f'reads feature map {indices[0]}, the deepest of the '
            f'{len(strides)} of stride {strides[0]} that the {old["type"]} had'
        ]
    elif len(indices) > 1:
        indices = [i for i in indices if maps[i][1] >= STRIDE] or indices[-1:]
        read = ', '.join(f'{i} (stride {maps[i][1]})' for i in indices)
        why = [f'reads feature maps {read}, resized to the first'
               ] if len(indices) > 1 else [f'reads feature map {read}']
        if len(indices) < len(strides):
            why[0] += (f'; not those below stride {STRIDE}, which is the '
                       "paper's, as cost grows with the size of the first")
    channels = [maps[i][0] for i in indices]
    if len(indices) == 1:
        return dict(in_channels=channels[0], in_index=indices[0]), why
    return dict(
        in_channels=channels,
        in_index=indices,
        input_transform='resize_concat'), why


def fit_norm(head: dict, old: dict, config: Config) -> List[str]:
    """Give the head a norm of feature maps, and return why it was changed."""
    notes = []
    norm = head.get('norm_cfg')
    if not norm or norm['type'] == 'LN':  # of tokens (B, N, C), not of maps
        head['norm_cfg'] = dict(type='SyncBN', requires_grad=True)
        notes.append(f'norm_cfg is SyncBN: the {old["type"]} had '
                     f'{norm["type"] if norm else "none"}')
    batch = (config.get('train_dataloader') or {}).get('batch_size')
    if batch == 1 and head['norm_cfg']['type'] in ('BN', 'BN2d'):
        head['pool_norm_cfg'] = None
        notes.append('pool_norm_cfg is None: BN cannot normalise the pooled '
                     'branch of one image per batch')
    return notes
