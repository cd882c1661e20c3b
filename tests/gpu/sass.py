"""Instructions that a thread executes, counted in compiled code.

A kernel has no conditions but its loops that matter: each instruction is
executed as often as the loops around it have trips. Loops are the natural ones
of the control flow: an edge back to a block that all paths to it pass, and
what reaches the edge without that block. Instructions of a branch not taken,
and those whose predicate is false, count: a warp issues most of them.
"""
import re
from typing import Dict, List, Sequence, Set, Tuple

LABEL = re.compile(r'^(\.L_x_\d+):')
INSTRUCTION = re.compile(
    r'^\s*/\*[0-9a-f]{4,}\*/\s+(@!?U?P\w+\s+)?([A-Z][\w.]*)(.*)')
ENDS = ('EXIT', 'RET')
# in a loop that waits for a copy or a tensor core, and has no work
WAITS = ('SYNCS', 'NANOSLEEP', 'UTCATOMSWS')


class Block:
    """Instructions that are executed one after the other.

    Attributes:
        names: Of the instructions.
        after: Indices of the blocks that may follow.
    """

    def __init__(self) -> None:
        self.names: List[str] = []
        self.after: List[int] = []


def instructions(code: str) -> List[str]:
    """Return the names of all instructions, of what nvdisasm prints."""
    return [name for block in _blocks(code) for name in block.names]


def executed(code: str, trips: Sequence[float]) -> float:
    """Return how many instructions a thread executes.

    Args:
        code: What ``nvdisasm -c`` prints of a kernel.
        trips: Of each loop in the order of the code: how often its body is
            executed in all.

    Raises:
        ValueError: If the code has another number of loops.
    """
    blocks = _blocks(code)
    loops = [(head, body) for head, body in sorted(_loops(blocks).items())
             if not _waits(blocks, body)]
    if len(loops) != len(trips):
        sizes = [sum(len(blocks[i].names) for i in body) for _, body in loops]
        raise ValueError(f'{len(trips)} loops expected, found those of '
                         f'{sizes} instructions')
    count = 0.
    for i, block in enumerate(blocks):
        # the smallest of the loops around it
        around = min(((len(body), times)
                      for (_, body), times in zip(loops, trips) if i in body),
                     default=(0, 1.))
        count += around[1] * len(block.names)
    return count


def _waits(blocks: Sequence[Block], body: Set[int]) -> bool:
    names = [name for i in body for name in blocks[i].names]
    return len(names) < 20 and any(name.startswith(WAITS) for name in names)


def _blocks(code: str) -> List[Block]:
    blocks, labels, jumps = [Block()], {}, []
    new = False
    for line in code.splitlines():
        label = LABEL.match(line.strip())
        if label:
            if blocks[-1].names:
                blocks.append(Block())
                if not new:
                    blocks[-2].after.append(len(blocks) - 1)
            labels[label[1]], new = len(blocks) - 1, False
            continue
        found = INSTRUCTION.match(line)
        if not found:
            continue
        if new:
            blocks.append(Block())
        predicate, name, rest = found.groups()
        blocks[-1].names.append(name)
        # ptxas leaves loops by calls that do not return, too
        target = re.search(r'\.L_x_\d+', rest)
        jump = target and name.startswith(('BRA', 'CALL'))
        if jump:
            jumps.append((len(blocks) - 1, target[0]))
        new = jump or name.startswith(ENDS)
        conditional = (
            predicate or name.startswith('BRA.DIV')
            or re.match(r'\s*!?U?P\d', rest))
        if new and conditional:
            blocks[-1].after.append(len(blocks))
    for i, label in jumps:
        blocks[i].after.append(labels[label])
    for block in blocks:
        block.after = [i for i in block.after if i < len(blocks)]
    return blocks


def _loops(blocks: Sequence[Block]) -> Dict[int, Set[int]]:
    """Return the blocks of each loop, by its first."""
    before: List[List[int]] = [[] for _ in blocks]
    for i, block in enumerate(blocks):
        for j in block.after:
            before[j].append(i)
    everything = {*range(len(blocks)), -1}  # -1 stays where no path leads
    above = [{0}] + [everything] * (len(blocks) - 1)  # on all paths to each
    changed = True
    while changed:
        changed = False
        for i in range(1, len(blocks)):
            paths = [above[j] for j in before[i]]
            found = {i} | (set.intersection(*paths) if paths else everything)
            changed |= found != above[i]
            above[i] = found
    edges: List[Tuple[int, int]] = [(i, j) for i, block in enumerate(blocks)
                                    for j in block.after
                                    if j in above[i] and -1 not in above[i]]
    loops: Dict[int, Set[int]] = {}
    for end, head in edges:
        body = loops.setdefault(head, {head})
        waiting = [end]
        while waiting:
            i = waiting.pop()
            if i not in body:
                body.add(i)
                waiting += before[i]
    return loops
