"""The HTTP door: one FastAPI application with the routes of Vertex, SageMaker, KServe and OpenAI Images."""
