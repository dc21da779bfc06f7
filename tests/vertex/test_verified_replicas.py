"""An uploaded archive is verified before a replica starts; the deployment fails with the reason."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from google.api_core import exceptions
from local_vertex import LocalVertex

from pipeline.archive.zip_records import stored_entry
from pipeline.cloud.certificates import Certificate
from pipeline.cloud.clock import Clock
from pipeline.cloud.vertex.torchserve_container import start_torchserve


def test_a_changed_handler_is_never_run_by_a_replica(
    tmp_path: Path, certificate: Certificate, prebuilt_mar: Path
) -> None:
    ran, spoiled = tmp_path / "ran", tmp_path / "spoiled.mar"
    with zipfile.ZipFile(prebuilt_mar) as archive, zipfile.ZipFile(spoiled, "w") as copy:
        for name in archive.namelist():
            data = archive.read(name)
            if name == "marquee_handler.py":
                data += f"open({str(ran)!r}, 'w').close()\n".encode()
            copy.writestr(stored_entry(name, len(data)), data)
    cloud = LocalVertex(tmp_path / "cloud", certificate, Clock(), start_container=start_torchserve)
    cloud.put("spoiled/model.mar", spoiled.read_bytes())
    cloud.start()
    clients = cloud.clients("grpc")
    try:
        endpoint = clients.create_endpoint().name
        model = clients.upload("spoiled").model
        with pytest.raises(
            exceptions.FailedPrecondition, match=r"marquee_handler\.py has changed"
        ) as failure:
            clients.begin_deploy(endpoint, model).result(timeout=120)
        assert "model.mar is refused, and nothing of it was run" in failure.value.message
        assert not ran.exists()
        assert list(clients.endpoints.get_endpoint(name=endpoint).deployed_models) == []
    finally:
        clients.close[0].close()
        cloud.stop()
        cloud.store.close()
