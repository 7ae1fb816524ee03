"""A real RTSP camera: GStreamer's server with a test picture, run by the system's Python.

As a program: `/usr/bin/python3 tests/rtsp_server.py PORT WIDTH HEIGHT`; it prints a line when it
listens. On Debian and Ubuntu: `apt install gir1.2-gst-rtsp-server-1.0 python3-gi
gstreamer1.0-plugins-base gstreamer1.0-plugins-good`.
"""

from __future__ import annotations

import socket
import subprocess
import sys

PYTHON = "/usr/bin/python3"  # gi is compiled for it


def missing() -> str | None:
    """What keeps the server from running, if anything."""
    check = (
        "import gi; gi.require_version('Gst', '1.0'); gi.require_version('GstRtspServer', '1.0');"
        "from gi.repository import Gst, GstRtspServer; Gst.init(None);"
        "assert all(map(Gst.ElementFactory.find, ('videotestsrc', 'jpegenc', 'rtpjpegpay')))"
    )
    try:
        done = subprocess.run([PYTHON, "-c", check], capture_output=True, timeout=60)
    except OSError:
        return f"no {PYTHON}"
    if done.returncode:
        return "no GStreamer RTSP server: apt install gir1.2-gst-rtsp-server-1.0 python3-gi"
    return None


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def start(port: int, width: int, height: int) -> subprocess.Popen[str]:
    """The server, listening; to be killed."""
    process = subprocess.Popen(
        [PYTHON, __file__, str(port), str(width), str(height)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def serve(port: str, width: str, height: str) -> None:
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer

    Gst.init(None)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(
        "( videotestsrc is-live=true pattern=ball "
        f"! video/x-raw,format=I420,width={width},height={height},framerate=25/1 "
        "! jpegenc ! rtpjpegpay name=pay0 )"
    )
    factory.set_shared(True)
    server = GstRtspServer.RTSPServer(address="127.0.0.1", service=port)
    server.get_mount_points().add_factory("/street", factory)
    server.attach(None)
    print("listening", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    serve(*sys.argv[1:])
