"""Ask a served archive for pictures: ``Client(url).predict([{"prompt": "..."}])``."""

from pipeline.client.errors import (
    BadAnswer,
    InvalidRequest,
    PayloadTooLarge,
    PredictionError,
    Problem,
    ServerBusy,
    ServerFailed,
    ServerUnreachable,
)
from pipeline.client.http_client import Client
from pipeline.client.predictions import Prediction
from pipeline.client.retries import Patience
from pipeline.client.vertex import VertexEndpoint

__all__ = [
    "BadAnswer",
    "Client",
    "InvalidRequest",
    "Patience",
    "PayloadTooLarge",
    "Prediction",
    "PredictionError",
    "Problem",
    "ServerBusy",
    "ServerFailed",
    "ServerUnreachable",
    "VertexEndpoint",
]
