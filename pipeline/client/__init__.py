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

__all__ = [
    "BadAnswer",
    "Client",
    "InvalidRequest",
    "PayloadTooLarge",
    "Prediction",
    "PredictionError",
    "Problem",
    "ServerBusy",
    "ServerFailed",
    "ServerUnreachable",
]
