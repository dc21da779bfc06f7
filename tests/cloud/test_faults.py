from __future__ import annotations

import threading
from pathlib import Path

import pytest

from pipeline.cloud.faults import FAULTS, Fault, FaultBook, parse_fault
from pipeline.errors import MarqueeError


@pytest.fixture
def book(tmp_path: Path) -> FaultBook:
    return FaultBook(tmp_path / "faults.json")


def test_a_name_alone_takes_the_kinds_defaults() -> None:
    assert parse_fault("upload-cut") == Fault("upload-cut", "*", 1, {"after_bytes": 1 << 20})
    assert parse_fault("never-ready").count is None


def test_every_option_is_read() -> None:
    text = "slow-start,target=DeployModel/*,count=3,seconds=1.5"
    assert parse_fault(text) == Fault("slow-start", "DeployModel/*", 3, {"seconds": 1.5})
    assert parse_fault("upload-cut,count=forever").count is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("upload-cuts", "no fault is called 'upload-cuts'"),
        ("upload-cut,seconds=3", "fault upload-cut has no option 'seconds'"),
        ("upload-cut,count=few", "count of fault upload-cut is 'few', not a whole number"),
    ],
)
def test_mistakes_are_named(text: str, words: str) -> None:
    with pytest.raises(MarqueeError, match=words):
        parse_fault(text)


def test_a_fault_is_used_up(book: FaultBook) -> None:
    book.set(parse_fault("upload-cut,count=2"))
    assert [book.take("upload-cut", "b/o") is not None for _ in range(3)] == [True, True, False]
    assert book.all() == []


def test_a_fault_without_count_stays_until_cleared(book: FaultBook) -> None:
    book.set(parse_fault("never-ready"))
    book.set(parse_fault("quota-exhausted"))
    assert all(book.take("never-ready", "x") for _ in range(5))
    book.clear("never-ready")
    assert [fault.name for fault in book.all()] == ["quota-exhausted"]
    book.clear()
    assert book.take("quota-exhausted", "x") is None


def test_a_fault_hits_its_target_alone(book: FaultBook) -> None:
    book.set(parse_fault("upload-cut,target=bucket/*.mar"))
    assert book.take("upload-cut", "bucket/notes.txt") is None
    assert book.take("storage-unavailable", "bucket/model.mar") is None
    assert book.take("upload-cut", "bucket/a/model.mar") is not None


def test_two_processes_never_take_the_same(tmp_path: Path) -> None:
    """Two books on one file stand for two processes: they share nothing but the file."""
    FaultBook(tmp_path / "faults.json").set(parse_fault("upload-cut,count=50"))
    taken: list[bool] = []

    def take() -> None:
        book = FaultBook(tmp_path / "faults.json")
        taken.extend(book.take("upload-cut", "x") is not None for _ in range(40))

    threads = [threading.Thread(target=take) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert taken.count(True) == 50


def test_every_kind_says_what_it_does() -> None:
    assert all(kind.does for kind in FAULTS.values())
