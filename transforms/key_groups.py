"""Keys that spread evenly over Flink's workers: which worker gets a key, and how to choose keys.

Flink hashes a key to one of `max_parallelism` key groups and gives each subtask a range of groups. Thousands of keys
spread well by chance; a few dozen leave some subtasks idle and others with double the work. With so few keys
(`transforms.keyed_state`), each is chosen by trying numbers until one falls into the intended group.

Chosen keys are part of savepoints: the same arguments must give the same keys in every release. A runner that hashes
otherwise spreads them like any others. See docs/adr/0031-key-groups.md.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import count

__all__ = ["MAX_PARALLELISM", "encoded_int", "even_keys", "key_group", "shard_keys", "subtask_of"]

MAX_PARALLELISM = 128
"""What it is unless somebody says otherwise: that many workers at most, and key groups in a savepoint."""

_32, _64 = (1 << 32) - 1, (1 << 64) - 1
_C1, _C2 = 0x87C37B91114253D5, 0x4CF5AD432745937F


def key_group(encoded: bytes, max_parallelism: int) -> int:
    """The key group of a key that its coder encodes so; see FlinkKey of Beam, KeyGroupRangeAssignment of Flink."""
    return _mix_int(_murmur3_128(encoded) & _32) % max_parallelism


def subtask_of(group: int, max_parallelism: int, parallelism: int) -> int:
    """The subtask that gets a key group."""
    return group * parallelism // max_parallelism


def even_keys(number: int, max_parallelism: int, encode: Callable[[int], bytes]) -> tuple[int, ...]:
    """Keys at even distances over the key groups: key i falls into group ⌊i × max_parallelism ÷ number⌋.

    If `number` divides `max_parallelism`, no subtask of p gets more than ⌈number ÷ p⌉ of them.

    Args:
      encode: what a key is on the wire.
    """
    wanted: dict[int, list[int]] = {}
    for i in reversed(range(number)):
        wanted.setdefault(i * max_parallelism // number, []).append(i)
    keys = [0] * number
    for key in count():
        group = key_group(encode(key), max_parallelism)
        if places := wanted.get(group):
            keys[places.pop()] = key
            if not places:
                del wanted[group]
                if not wanted:
                    break
    return tuple(keys)


@cache
def shard_keys(shards: int, max_parallelism: int) -> tuple[int, ...]:
    """The key of each shard, for a collection keyed by `int`."""
    return even_keys(shards, max_parallelism, encoded_int)


def encoded_int(key: int) -> bytes:
    """A key of at least 0 as Beam's VarIntCoder writes it."""
    encoded = bytearray()
    while key > 127:
        encoded.append(key & 127 | 128)
        key >>= 7
    encoded.append(key)
    return bytes(encoded)


def _murmur3_128(data: bytes) -> int:
    """The first half of MurmurHash3 x64 128, seed 0."""
    h1 = h2 = 0
    whole = len(data) & ~15
    for at in range(0, whole, 16):
        h1 ^= _scramble(int.from_bytes(data[at : at + 8], "little"), _C1, _C2, 31)
        h1 = ((_rotl(h1, 27, 64) + h2) * 5 + 0x52DCE729) & _64
        h2 ^= _scramble(int.from_bytes(data[at + 8 : at + 16], "little"), _C2, _C1, 33)
        h2 = ((_rotl(h2, 31, 64) + h1) * 5 + 0x38495AB5) & _64
    h2 ^= _scramble(int.from_bytes(data[whole + 8 :], "little"), _C2, _C1, 33)
    h1 ^= _scramble(int.from_bytes(data[whole : whole + 8], "little"), _C1, _C2, 31)
    h1, h2 = h1 ^ len(data), h2 ^ len(data)
    h1 = (h1 + h2) & _64
    h2 = (h2 + h1) & _64
    return (_mix_long(h1) + _mix_long(h2)) & _64


def _scramble(k: int, first: int, second: int, by: int) -> int:
    return _rotl(k * first & _64, by, 64) * second & _64


def _mix_long(k: int) -> int:
    k = (k ^ k >> 33) * 0xFF51AFD7ED558CCD & _64
    k = (k ^ k >> 33) * 0xC4CEB9FE1A85EC53 & _64
    return k ^ k >> 33


def _mix_int(code: int) -> int:
    """Flink's MathUtils.murmurHash: of a hash code, a number of at least 0."""
    code = _rotl(code * 0xCC9E2D51 & _32, 15, 32) * 0x1B873593 & _32
    code = (_rotl(code, 13, 32) * 5 + 0xE6546B64 & _32) ^ 4
    code = (code ^ code >> 16) * 0x85EBCA6B & _32
    code = (code ^ code >> 13) * 0xC2B2AE35 & _32
    code ^= code >> 16
    return code if code < 1 << 31 else -code & (_32 >> 1)


def _rotl(value: int, by: int, bits: int) -> int:
    return (value << by | value >> bits - by) & (1 << bits) - 1
