"""Vertex AI on loopback for the unmodified SDK: models, endpoints, predictions, real TorchServe behind.

methods.py              the table of methods, derived from the installed SDK
grpc_front.py           gRPC over TLS; rest_front.py and transcode.py: REST
model_service.py        models and versions (models.py); endpoint_service.py: endpoints (endpoints.py)
deployment_service.py   deploy, undeploy, mutate; deployments.py: the processes behind
prediction_service.py   predict and rawPredict; traffic.py: which model, which replica
operations.py           long-running operations, which outlive the process; operation_service.py: their RPCs
containers.py           what a replica is; torchserve_container.py: the one that runs TorchServe
records.py              SQLite, so that all of it survives a restart; server.py: start and stop
"""
