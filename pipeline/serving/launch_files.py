"""The files TorchServe is started with: config.properties, log4j2.xml and the program that runs a worker."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

from pipeline.archive.verification import verified_copy
from pipeline.serving import worker_process
from pipeline.serving.memory import MEBIBYTE, heap_bytes, total_memory
from pipeline.serving.settings import Ports, ServeOptions
from pipeline.serving.socket_folder import INFERENCE_SOCKET, MANAGEMENT_SOCKET, WORKER_SOCKET

# The first flag keeps a Java older than 25 from refusing the other two, which silence its warnings on 25.
JVM_FLAGS = (
    "-XX:+IgnoreUnrecognizedVMOptions",
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
    # TorchServe asserts that a connection has no unanswered request when another comes. With that assertion
    # on, pipelined requests are refused (docs/security.md); without it answers are mixed up.
    "-ea:org.pytorch.serve.util.NettyUtils",
)

CONTROL = "control"
WORKER_PROGRAM = "python"

# TorchServe's own configuration writes fifteen lines a request; this one none for a request that went well.
# Only the loggers that never see a request may write messages. Every other one (Netty's decoders quote the
# body they cannot read) leaves the class of its error and not a word of it.
LOG4J2 = """\
<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="WARN">
  <Appenders>
    <RollingFile name="ts_log" fileName="${env:LOG_LOCATION}/ts_log.log"
                 filePattern="${env:LOG_LOCATION}/ts_log.%i.log">
      <PatternLayout pattern="%d{ISO8601} [%-5p] %t %c - %m%n"/>
      <Policies><SizeBasedTriggeringPolicy size="20 MB"/></Policies>
      <DefaultRolloverStrategy max="2"/>
    </RollingFile>
    <RollingFile name="errors" fileName="${env:LOG_LOCATION}/errors.log"
                 filePattern="${env:LOG_LOCATION}/errors.%i.log">
      <PatternLayout pattern="%d{ISO8601} [%-5p] %c %ex{short.className}%n" alwaysWriteExceptions="false"/>
      <Policies><SizeBasedTriggeringPolicy size="20 MB"/></Policies>
      <DefaultRolloverStrategy max="2"/>
    </RollingFile>
    <RollingFile name="model_log" fileName="${env:LOG_LOCATION}/model_log.log"
                 filePattern="${env:LOG_LOCATION}/model_log.%i.log">
      <PatternLayout pattern="%d{ISO8601} [%-5p] %t - %m%n"/>
      <Policies><SizeBasedTriggeringPolicy size="20 MB"/></Policies>
      <DefaultRolloverStrategy max="2"/>
    </RollingFile>
  </Appenders>
  <Loggers>
    <Logger name="MODEL_LOG" level="info" additivity="false">
      <RegexFilter regex="Backend received inference at.*" onMatch="DENY" onMismatch="NEUTRAL"/>
      <AppenderRef ref="model_log"/>
    </Logger>
    <Logger name="org.pytorch.serve.ModelServer" level="warn" additivity="false">
      <AppenderRef ref="ts_log"/>
    </Logger>
    <Logger name="org.pytorch.serve.archive" level="warn" additivity="false">
      <AppenderRef ref="ts_log"/>
    </Logger>
    <Logger name="org.pytorch.serve.wlm" level="warn" additivity="false">
      <AppenderRef ref="ts_log"/>
    </Logger>
    <Logger name="ACCESS_LOG" level="off"/>
    <Logger name="TS_METRICS" level="off"/>
    <Logger name="MODEL_METRICS" level="off"/>
    <Root level="error"><AppenderRef ref="errors"/></Root>
  </Loggers>
</Configuration>
"""


def config_properties(
    options: ServeOptions, ports: Ports, folder: Path, sockets: Path, behind_front: bool = False
) -> str:
    """The text of config.properties. Only the inference address may leave loopback.

    ``sockets``: the private folder of the Unix sockets. ``behind_front``: the front listens at the inference
    address, and TorchServe on a socket file.
    """
    inference = f"unix:{sockets / INFERENCE_SOCKET}"
    if not behind_front:
        inference = f"http://{options.bind_address}:{ports.inference}"
    lines = [
        f"inference_address={inference}",
        f"management_address={management_address(ports, sockets)}",
        f"metrics_address=http://127.0.0.1:{ports.metrics}",
        f"grpc_inference_address={ports.grpc_address}",
        f"grpc_management_address={ports.grpc_address}",
        f"grpc_inference_port={ports.grpc_inference}",
        f"grpc_management_port={ports.grpc_management}",
        f"model_store={folder / 'model-store'}",
        f"load_models={options.model_name}=model.mar",
        f"max_request_size={options.max_request_bytes}",
        f"max_response_size={options.max_response_bytes}",
        # The spelling matters: disable_token_auth is silently ignored. A token would be asked of every
        # prediction as well, so the management API is closed by where it listens.
        "disable_token_authorization=true",
        # A list of regular expressions: no archive's address is spelled "none", so nothing is fetched. What
        # remains is the store; workflows have one of their own, in which nothing can be.
        "allowed_urls=none",
        "workflow_store=/dev/null",
        "metrics_mode=prometheus",
        "model_metrics_auto_detect=true",
        "disable_system_metrics=true",
        f"vmargs={' '.join((*JVM_FLAGS, heap_flag()))}",
    ]
    if options.service_envelope is not None:
        lines.append(f"service_envelope={options.service_envelope}")
    return "\n".join(lines) + "\n"


def management_address(ports: Ports, sockets: Path) -> str:
    """Where the management API listens, as config.properties spells it."""
    if ports.management is None:
        return f"unix:{sockets / MANAGEMENT_SOCKET}"
    return f"http://127.0.0.1:{ports.management}"


def heap_flag() -> str:
    """Java's limit for this machine, -Xmx1536m."""
    return f"-Xmx{heap_bytes(total_memory()) // MEBIBYTE}m"


def write_launch_files(
    options: ServeOptions, ports: Ports, mar: Path, folder: Path, sockets: Path, behind_front: bool = False
) -> None:
    """Fill ``folder`` with what TorchServe needs, in place of an earlier run's.

    The archive is copied and the copy verified (pipeline.archive.verification): raises RefusedArchive.
    """
    for name in ("temp", "logs", "model-store", CONTROL):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir(parents=True, mode=0o700 if name == CONTROL else 0o777)
    verified_copy(mar, folder / "model-store" / "model.mar", foreign=options.foreign)
    text = config_properties(options, ports, folder, sockets, behind_front)
    (folder / "config.properties").write_text(text, encoding="utf-8")
    (folder / "log4j2.xml").write_text(LOG4J2, encoding="utf-8")
    _write_worker_program(folder / CONTROL, sockets, str(options.python or sys.executable))


def _write_worker_program(control: Path, sockets: Path, python: str) -> None:
    """The executable that TorchServe takes for Python; it runs the worker with ``python``."""
    command = [
        sys.executable,
        "-I",
        "-S",
        worker_process.__file__,
        str(sockets / WORKER_SOCKET),
        python,
    ]
    program = control / WORKER_PROGRAM
    program.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n', encoding="utf-8")
    program.chmod(0o700)
