"""An HTTP service on FastAPI: contexts, deadlines, probes, streams, a clean end."""
