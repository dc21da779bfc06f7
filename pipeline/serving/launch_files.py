"""The two files TorchServe is started with: config.properties and a quiet log4j2.xml."""

from __future__ import annotations

import shutil
from pathlib import Path

from pipeline.archive.verification import verified_copy
from pipeline.serving.settings import Ports, ServeOptions

# The first flag keeps a Java older than 25 from refusing the other two, which silence its warnings on 25.
JVM_FLAGS = (
    "-XX:+IgnoreUnrecognizedVMOptions",
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
    # TorchServe asserts that a connection has no unanswered request when another comes. With that assertion
    # on, pipelined requests are refused (docs/security.md); without it answers are mixed up.
    "-ea:org.pytorch.serve.util.NettyUtils",
)

# TorchServe's own configuration writes fifteen lines a request; this one none for a request that went well.
# "Retry worker" is the one line below WARN that is kept: it tells of a worker that ended without a word.
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
    <Logger name="org.pytorch.serve.wlm.WorkerThread" level="info">
      <Filters>
        <ThresholdFilter level="warn" onMatch="ACCEPT" onMismatch="NEUTRAL"/>
        <RegexFilter regex="Retry worker.*" onMatch="ACCEPT" onMismatch="DENY"/>
      </Filters>
    </Logger>
    <Logger name="ACCESS_LOG" level="off"/>
    <Logger name="TS_METRICS" level="off"/>
    <Logger name="MODEL_METRICS" level="off"/>
    <Root level="warn"><AppenderRef ref="ts_log"/></Root>
  </Loggers>
</Configuration>
"""


def config_properties(options: ServeOptions, ports: Ports, folder: Path) -> str:
    """The text of config.properties. Every address but the inference one stays on loopback."""
    lines = [
        f"inference_address=http://{options.bind_address}:{ports.inference}",
        f"management_address=http://127.0.0.1:{ports.management}",
        f"metrics_address=http://127.0.0.1:{ports.metrics}",
        f"grpc_inference_port={ports.grpc_inference}",
        f"grpc_management_port={ports.grpc_management}",
        f"model_store={folder / 'model-store'}",
        f"load_models={options.model_name}=model.mar",
        f"max_request_size={options.max_request_bytes}",
        f"max_response_size={options.max_response_bytes}",
        # The spelling matters: disable_token_auth is silently ignored.
        "disable_token_authorization=true",
        "allowed_urls=file://.*",
        "metrics_mode=prometheus",
        "model_metrics_auto_detect=true",
        "disable_system_metrics=true",
        f"vmargs={' '.join(JVM_FLAGS)}",
    ]
    if options.service_envelope is not None:
        lines.append(f"service_envelope={options.service_envelope}")
    return "\n".join(lines) + "\n"


def write_launch_files(options: ServeOptions, ports: Ports, mar: Path, folder: Path) -> None:
    """Fill ``folder`` with what TorchServe needs, in place of an earlier run's.

    The archive is copied and the copy verified (pipeline.archive.verification): raises RefusedArchive.
    """
    for name in ("temp", "logs", "model-store"):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir(parents=True)
    verified_copy(mar, folder / "model-store" / "model.mar", foreign=options.foreign)
    (folder / "config.properties").write_text(config_properties(options, ports, folder), encoding="utf-8")
    (folder / "log4j2.xml").write_text(LOG4J2, encoding="utf-8")
