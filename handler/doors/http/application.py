"""The FastAPI application: every route over one desk, and what stands before all of them."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware

from handler import __version__
from handler.doors.http.desk import Desk
from handler.doors.http.errors import add_error_handlers
from handler.doors.http.front import Front
from handler.doors.http.guards import Guards
from handler.doors.http.health import add_health_routes
from handler.doors.http.kserve import add_kserve_routes
from handler.doors.http.metrics import add_metrics_route
from handler.doors.http.openai_images import add_openai_routes
from handler.doors.http.sagemaker import add_sagemaker_routes
from handler.doors.http.vertex import add_vertex_routes

DESCRIPTION = (
    "Pictures from one model archive, for clients of Vertex AI, SageMaker, KServe and OpenAI Images."
)


def make_application(desk: Desk, guards: Guards, environment: Mapping[str, str]) -> FastAPI:
    """The application; ``environment`` names Vertex's routes. Raises ValueError where one is no path."""
    app: FastAPI = FastAPIOffline(
        title="marquee", version=__version__, description=DESCRIPTION, redoc_url=None, favicon_url=None
    )
    add_sagemaker_routes(app, desk)
    add_kserve_routes(app, desk)
    add_openai_routes(app, desk)
    taken = {str(getattr(route, "path", "")) for route in app.routes}
    add_vertex_routes(app, desk, environment, taken)
    add_health_routes(app, desk, environment)
    add_metrics_route(app, desk)
    add_error_handlers(app)
    app.add_middleware(Front, desk=desk, guards=guards)
    if guards.origins:  # outside the guards: a browser's preflight carries no key
        app.add_middleware(
            CORSMiddleware,
            allow_origins=guards.origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["x-request-id", "retry-after"],
        )
    return app
