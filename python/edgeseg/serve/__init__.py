"""A local page with a live overlay, and labels by HTTP; needs the extra `serve`."""

from edgeseg.serve.app import Limits, make_app
from edgeseg.serve.live import Live
from edgeseg.serve.server import Server, listen, serve_until_interrupted, url

__all__ = [
    "Limits",
    "Live",
    "Server",
    "listen",
    "make_app",
    "serve_until_interrupted",
    "url",
]
