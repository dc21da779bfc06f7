from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import psutil
import pytest

from pipeline.cloud.environment import child_environment
from pipeline.cloud.state import CloudFolder, Running
from pipeline.errors import MarqueeError


def record(storage_port: int = 1001) -> Running:
    """A cloud that is this process."""
    return Running(
        pid=os.getpid(),
        started=psutil.Process().create_time(),
        storage=f"http://127.0.0.1:{storage_port}",
        vertex_rest="http://127.0.0.1:1002",
        vertex_grpc="localhost:1003",
        dedicated="localhost:1004",
        proxy="http://127.0.0.1:1005",
        accounts="http://127.0.0.1:1006",
        ca_file="/cloud/ca.pem",
        credentials_file="/cloud/credentials.json",
        project="marquee-local",
    )


def test_default_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARQUEE_CLOUD", "/somewhere")
    assert CloudFolder().path == Path("/somewhere")
    monkeypatch.delenv("MARQUEE_CLOUD")
    assert CloudFolder().path == Path.home() / ".marquee" / "cloud"


def test_folder_is_its_owners(tmp_path: Path) -> None:
    folder = CloudFolder(tmp_path / "cloud")
    folder.make()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder.path, folder.certificates)] == [
        0o700,
        0o700,
    ]


def test_one_server_holds_it(tmp_path: Path) -> None:
    first, second = CloudFolder(tmp_path / "cloud"), CloudFolder(tmp_path / "cloud")
    first.make()
    with first.locked():
        assert second.is_locked()
        with pytest.raises(MarqueeError, match="already runs"), second.locked():
            pass
    assert not second.is_locked()


def test_running_until_forgotten(tmp_path: Path) -> None:
    folder = CloudFolder(tmp_path / "cloud")
    assert folder.running() is None
    folder.make()
    folder.record(record())
    assert CloudFolder(tmp_path / "cloud").running() == record()
    folder.forget()
    assert folder.running() is None


def test_another_process_with_the_same_id_is_not_it(tmp_path: Path) -> None:
    folder = CloudFolder(tmp_path / "cloud")
    folder.make()
    folder.record(Running(**{**record().__dict__, "started": record().started - 3600}))
    assert folder.running() is None


def test_last_port_is_taken_again_unless_somebody_has_it(tmp_path: Path) -> None:
    folder = CloudFolder(tmp_path / "cloud")
    folder.make()
    assert folder.free_port("storage") == 0
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        folder.record(record(port))
        assert folder.free_port("storage") == 0
    assert folder.free_port("storage") == port


def test_a_program_is_led_here_and_nowhere_else() -> None:
    base = {"PATH": "/bin", "STORAGE_EMULATOR_HOST": "http://elsewhere", "https_proxy": "http://elsewhere"}
    environment = child_environment(base, record())
    assert environment["PATH"] == "/bin"
    assert "elsewhere" not in " ".join(environment.values())
    assert environment["https_proxy"] == environment["grpc_proxy"] == record().proxy
    assert environment["GOOGLE_APPLICATION_CREDENTIALS"] == record().credentials_file
    assert environment["GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"] == record().ca_file


def test_a_program_keeps_its_own_project() -> None:
    assert child_environment({}, record())["GOOGLE_CLOUD_PROJECT"] == "marquee-local"
    assert child_environment({"GOOGLE_CLOUD_PROJECT": "mine"}, record())["GOOGLE_CLOUD_PROJECT"] == "mine"
