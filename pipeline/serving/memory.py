"""The memory of this machine or container, and the share of it that TorchServe's Java may take."""

from __future__ import annotations

from pathlib import Path

MEBIBYTE = 1024 * 1024
CGROUP = Path("/sys/fs/cgroup")
# Without -Xmx Java takes a quarter of the memory, and uncollected garbage fills it: base64 multipart bodies
# grew it to 6.5 GB of 24. It needs about 100 MiB itself, and a body of 10 MiB five to ten times its size.
SMALLEST_HEAP = 384 * MEBIBYTE
LARGEST_HEAP = 2048 * MEBIBYTE
HEAP_SHARE = 16


def available_memory() -> int:
    """Bytes that new processes can have."""
    import psutil

    machine = int(psutil.virtual_memory().available)  # MemAvailable: page cache counts as free
    container = unused_memory(CGROUP)
    return machine if container is None else min(machine, container)


def total_memory(cgroup: Path = CGROUP) -> int:
    """Bytes that this machine has, or that this container may use."""
    import psutil

    machine = int(psutil.virtual_memory().total)
    limit = _read(cgroup / "memory.max")
    return min(machine, int(limit)) if limit.isdigit() else machine  # "max": no limit


def heap_bytes(total: int) -> int:
    """The largest heap of TorchServe's Java on a machine with ``total`` bytes of memory, for -Xmx."""
    return min(LARGEST_HEAP, max(SMALLEST_HEAP, total // HEAP_SHARE))


def unused_memory(cgroup: Path) -> int | None:
    """Bytes left below a cgroup v2's limit, page cache counted as free; None without a limit.

    Files read or written (a model just built) count as used; the kernel drops them when needed.
    """
    limit, used, stat = (_read(cgroup / name) for name in ("memory.max", "memory.current", "memory.stat"))
    if not limit.isdigit() or not used.isdigit():
        return None
    numbers = dict(line.split() for line in stat.splitlines())
    cache = sum(int(numbers.get(name, 0)) for name in ("active_file", "inactive_file"))
    return int(limit) - int(used) + cache


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
