"""Google's own clients for one target, which the configuration alone chooses, never an environment variable.

Local cloud: explicit addresses, its own certificate authority, a token of its own account, no proxies.
Google: Google's addresses and the user's credentials. An environment variable that redirects Google's
clients is an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.errors import MarqueeError

if TYPE_CHECKING:
    import httpx
    from google.cloud.aiplatform_v1 import EndpointServiceClient, ModelServiceClient
    from google.cloud.storage import Client as StorageClient

    from pipeline.cloud.state import Running
    from pipeline.deploy.config import DeployConfig

# Variables that redirect google-cloud-storage to another server.
_REDIRECTIONS = ("STORAGE_EMULATOR_HOST", "API_ENDPOINT_OVERRIDE", "API_VERSION_OVERRIDE")
_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)


@dataclass(frozen=True)
class Connection:
    """Clients for one project and region.

    ``web`` posts predictions; for shared endpoints it posts them to ``predict_host``. ``operation_seconds``
    is the longest wait for one long-running operation.
    """

    cloud: str
    project: str
    region: str
    storage: StorageClient
    models: ModelServiceClient
    endpoints: EndpointServiceClient
    web: httpx.Client
    predict_host: str
    operation_seconds: float = 5400.0
    accounts: str = ""  # the address at which a local cloud serves Google's other services

    @property
    def location(self) -> str:
        return f"projects/{self.project}/locations/{self.region}"

    def service_url(self, service: str) -> str:
        """The address of a Google service such as "serviceusage"."""
        return self.accounts or f"https://{service}.googleapis.com"

    def model_name(self, model_id: str) -> str:
        return f"{self.location}/models/{model_id}"

    def endpoint_name(self, endpoint_id: str) -> str:
        return f"{self.location}/endpoints/{endpoint_id}"


def target_line(config: DeployConfig) -> str:
    """The line that every command which can reach a cloud prints first."""
    if config.cloud == "local":
        return "target: the local cloud on this machine; nothing is charged"
    return f"target: GOOGLE CLOUD, project {config.project}, {config.region}; what runs there is charged"


@contextmanager
def connect(
    config: DeployConfig, running: Running | None, environ: Mapping[str, str]
) -> Iterator[Connection]:
    """Clients for ``config.cloud``. ``running`` is the local cloud of this machine, if one runs."""
    if config.cloud == "google":
        refuse_redirection(environ, running)
        connection = _google(config)
    else:
        if running is None:
            raise MarqueeError("the local cloud is not running", cure="marquee cloud up")
        connection = _local(config, running)
    try:
        yield connection
    finally:
        connection.web.close()
        _close(connection.storage, connection.models.transport, connection.endpoints.transport)


def _close(*clients: Any) -> None:
    for client in clients:
        client.close()


def refuse_redirection(environ: Mapping[str, str], running: Running | None) -> None:
    """Raises MarqueeError when a variable would send a Google run's calls to a local cloud or an emulator."""
    marks = [running.proxy, running.storage, running.ca_file, running.credentials_file] if running else []
    led = [name for name in _REDIRECTIONS if environ.get(name)]
    led += [name for name, value in environ.items() if any(mark and mark in value for mark in marks)]
    if led:
        names = ", ".join(sorted(set(led)))
        raise MarqueeError(
            f"cloud is google, but environment variables redirect it to a local cloud: {names}",
            cure=f"unset {names}, or leave `marquee cloud run`",
        )


def _local(config: DeployConfig, running: Running) -> Connection:
    import ssl
    from pathlib import Path

    import grpc
    import httpx
    from google.auth.transport.grpc import AuthMetadataPlugin
    from google.auth.transport.requests import AuthorizedSession, Request
    from google.cloud import storage
    from google.cloud.aiplatform_v1 import EndpointServiceClient, ModelServiceClient

    from pipeline.client.vertex import token_auth
    from pipeline.cloud.credentials import local_credentials
    from pipeline.cloud.state import port_of

    credentials = local_credentials(Path(running.credentials_file))
    root = grpc.ssl_channel_credentials(Path(running.ca_file).read_bytes())
    # A proxy or a CA from the environment must not apply to the connection to the local cloud.
    token = grpc.metadata_call_credentials(AuthMetadataPlugin(credentials, None))  # type: ignore[no-untyped-call]
    secured = grpc.composite_channel_credentials(root, token)
    channel = grpc.secure_channel(running.vertex_grpc, secured, options=[("grpc.enable_http_proxy", 0)])
    session: Any = AuthorizedSession(credentials, auth_request=Request())  # type: ignore[no-untyped-call]
    session.trust_env = False
    return Connection(
        cloud="local",
        project=config.project,
        region=config.region,
        storage=storage.Client(
            project=config.project,
            credentials=credentials,
            _http=session,
            client_options={"api_endpoint": running.storage},
        ),
        models=ModelServiceClient(transport=_transport(ModelServiceClient, channel)),
        endpoints=EndpointServiceClient(transport=_transport(EndpointServiceClient, channel)),
        web=httpx.Client(
            auth=token_auth(credentials, running.accounts),
            verify=ssl.create_default_context(cafile=running.ca_file),
            trust_env=False,
        ),
        predict_host=f"localhost:{port_of(running.vertex_rest)}",
        operation_seconds=config.operation_timeout,
        accounts=running.accounts,
    )


def _transport(client: Any, channel: Any) -> Any:
    """The SDK's default transport, gRPC, over a channel of ours."""
    return client.get_transport_class("grpc")(channel=channel)


def _google(config: DeployConfig) -> Connection:
    import google.auth
    import httpx
    from google.auth.exceptions import DefaultCredentialsError
    from google.cloud import storage
    from google.cloud.aiplatform_v1 import EndpointServiceClient, ModelServiceClient

    from pipeline.client.vertex import token_auth

    try:
        credentials, _ = google.auth.default(scopes=list(_SCOPES))
    except DefaultCredentialsError as error:
        raise MarqueeError(
            "no Google credentials are found on this machine", cure="gcloud auth application-default login"
        ) from error
    host = f"{config.region}-aiplatform.googleapis.com"
    address = {"api_endpoint": host}
    return Connection(
        cloud="google",
        project=config.project,
        region=config.region,
        storage=storage.Client(project=config.project, credentials=credentials),
        models=ModelServiceClient(credentials=credentials, client_options=address),
        endpoints=EndpointServiceClient(credentials=credentials, client_options=address),
        web=httpx.Client(auth=token_auth(credentials)),
        predict_host=host,
        operation_seconds=config.operation_timeout,
    )
