"""A local Vertex AI in this process, spoken to by Google's own clients over real sockets."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from stub_container import StubContainers

from pipeline.cloud.certificates import Certificate
from pipeline.cloud.clock import Clock
from pipeline.cloud.credentials import LocalCredentials, account_key
from pipeline.cloud.faults import Fault, FaultBook, parse_fault
from pipeline.cloud.storage.objects import ObjectStore, target
from pipeline.cloud.tokens import Keys, Tokens
from pipeline.cloud.vertex.containers import StartContainer
from pipeline.cloud.vertex.server import VertexServers, start_vertex

LOCATION = "projects/marquee-local/locations/us-central1"
NUMBERED = "projects/123456789012/locations/us-central1"
IMAGE = "us-docker.pkg.dev/vertex-ai/prediction/pytorch-gpu.2-4:latest"
MACHINE = {"machine_type": "n1-standard-8", "accelerator_type": "NVIDIA_TESLA_P100", "accelerator_count": 1}


@cache
def tokens() -> Tokens:
    """One account for all tests: an RSA key takes a while to make."""
    return Tokens(account_key(Path("/there/is/no/such/file")))


@dataclass
class LocalVertex:
    """One cloud: its folder, bucket, faults, containers and, while it runs, its servers."""

    folder: Path
    certificate: Certificate
    clock: Clock
    containers: StubContainers = field(default_factory=StubContainers)
    servers: VertexServers | None = None
    start_container: StartContainer | None = None

    def __post_init__(self) -> None:
        self.store = ObjectStore(self.folder / "storage")
        self.faults = FaultBook(self.folder / "faults.json")
        if not any(bucket.name == "models" for bucket in self.store.buckets()):
            self.store.create_bucket("models")

    def put(self, name: str, content: bytes) -> None:
        draft = self.store.draft()
        draft.write(content)
        self.store.commit(draft, target("models", name))

    def fault(self, text: str) -> Fault:
        fault = parse_fault(text)
        self.faults.set(fault)
        return fault

    def start(self) -> VertexServers:
        self.servers = start_vertex(
            self.store,
            self.folder / "vertex",
            Keys(self.certificate, tokens()),
            self.faults,
            self.clock,
            start_container=self.start_container or self.containers.start,
        )
        return self.servers

    def stop(self) -> None:
        if self.servers is not None:
            self.servers.stop()
            self.servers = None

    def clients(self, transport: str) -> Clients:
        assert self.servers is not None
        return make_clients(self.servers, self.certificate, transport)


@dataclass
class Clients:
    """Google's generated clients; the comfortable SDK is a layer above them."""

    models: Any
    endpoints: Any
    predictions: Any
    close: list[Any]

    def upload(self, name: str = "shapes", **fields: Any) -> Any:
        """Upload from gs://models/NAME and wait; keywords are fields of the request or of the model."""
        request = {key: fields.pop(key) for key in ("model_id", "parent_model") if key in fields}
        folder = fields.pop("folder", name)
        container = {"image_uri": fields.pop("image", IMAGE)}
        uri = f"gs://models/{folder}"
        model = {"display_name": name, "artifact_uri": uri, "container_spec": container, **fields}
        operation = self.models.upload_model({"parent": LOCATION, "model": model, **request})
        return operation.result(timeout=60)

    def create_endpoint(self, name: str = "pictures", endpoint_id: str = "", **fields: Any) -> Any:
        endpoint = {"display_name": name, **fields}
        request = {"parent": LOCATION, "endpoint": endpoint, "endpoint_id": endpoint_id}
        return self.endpoints.create_endpoint(request).result(timeout=60)

    def begin_deploy(self, endpoint: str, model: str, **fields: Any) -> Any:
        split = fields.pop("split", {"0": 100})
        machine = fields.pop("machine", MACHINE)
        resources = {"machine_spec": machine, "min_replica_count": fields.pop("replicas", 1)}
        resources["max_replica_count"] = fields.pop("max_replicas", resources["min_replica_count"])
        deployed = {"model": model, "dedicated_resources": resources, **fields}
        request = {"endpoint": endpoint, "deployed_model": deployed, "traffic_split": split}
        return self.endpoints.deploy_model(request)

    def deploy(self, endpoint: str, model: str, **fields: Any) -> Any:
        return self.begin_deploy(endpoint, model, **fields).result(timeout=60).deployed_model

    def undeploy(self, endpoint: str, deployed_id: str, **fields: Any) -> None:
        request = {"endpoint": endpoint, "deployed_model_id": deployed_id, **fields}
        self.endpoints.undeploy_model(request).result(timeout=60)

    def predict(self, endpoint: str, *instances: Any, **fields: Any) -> Any:
        return self.predictions.predict(endpoint=endpoint, instances=list(instances), **fields)


def make_clients(servers: VertexServers, certificate: Certificate, transport: str) -> Clients:
    from google.api_core.client_options import ClientOptions
    from google.auth.transport.grpc import AuthMetadataPlugin
    from google.cloud import aiplatform_v1

    classes = (
        aiplatform_v1.ModelServiceClient,
        aiplatform_v1.EndpointServiceClient,
        aiplatform_v1.PredictionServiceClient,
    )
    credentials = LocalCredentials(tokens())
    if transport == "rest":
        options = ClientOptions(api_endpoint=servers.rest_url)
        made = [each(transport="rest", client_options=options, credentials=credentials) for each in classes]
        return Clients(*made, close=[client.transport for client in made])
    import grpc

    # A channel of its own: gRPC reads the environment's root certificates only once in a process.
    roots = grpc.ssl_channel_credentials(certificate.ca_file.read_bytes())
    calls = grpc.metadata_call_credentials(AuthMetadataPlugin(credentials, None))
    secured = grpc.composite_channel_credentials(roots, calls)
    channel = grpc.secure_channel(servers.grpc_address, secured, [("grpc.max_receive_message_length", -1)])
    made = [each(transport=each.get_transport_class("grpc")(channel=channel)) for each in classes]
    return Clients(*made, close=[channel])
