"""`python -m benchmarks.upload`: 100 MB to the local cloud against a plain copy with checksum, in turns.

The goal is at most 5 times the copy (median of the rounds' ratios). The result is only printed.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

BYTES = 100 << 20
BLOCK = 1 << 20
ROUNDS = 9
GOAL = 5.0


def copy(source: Path, target: Path) -> None:
    """Copy the same bytes to the same disk and compute the checksum that an upload is checked with."""
    import google_crc32c

    checksum = 0
    with source.open("rb") as reading, target.open("wb") as writing:
        while block := reading.read(BLOCK):
            writing.write(block)
            checksum = google_crc32c.extend(checksum, block)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(folder: Path) -> list[tuple[float, float]]:
    """(upload, copy) in seconds for each round, with Google's client and a local cloud of its own process."""
    from google.cloud import storage

    from pipeline.cloud import process
    from pipeline.cloud.credentials import local_credentials
    from pipeline.cloud.options import CloudOptions
    from pipeline.cloud.state import CloudFolder

    source = folder / "source"
    source.write_bytes(os.urandom(BYTES))
    cloud = CloudFolder(folder / "cloud")
    running = process.start(cloud, CloudOptions())
    try:
        client = storage.Client(
            project="benchmark",
            credentials=local_credentials(Path(running.credentials_file)),
            client_options={"api_endpoint": running.storage},
        )
        blob = client.create_bucket("benchmark").blob("source")
        return [
            (
                seconds(lambda: blob.upload_from_filename(str(source))),
                seconds(lambda: copy(source, folder / "copy")),
            )
            for _ in range(ROUNDS)
        ]
    finally:
        process.stop(cloud)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="marquee-upload-bench-") as name:
        rounds = measure(Path(name))
    for upload, plain in rounds:
        print(f"upload {upload:.3f} s  copy with crc32c {plain:.3f} s  {upload / plain:.1f} times")
    ratio = statistics.median(upload / plain for upload, plain in rounds)
    print(f"median {ratio:.1f} times (goal: at most {GOAL:g}), load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
