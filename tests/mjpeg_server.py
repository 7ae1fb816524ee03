"""A network camera of the plainest kind: JPEGs over HTTP, which does what a test tells it to."""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import dataclass

import cv2
import numpy as np

FPS = 200


@dataclass(frozen=True)
class Visit:
    """What one connection gets.

    Attributes:
        frames: how many, grey of `level`; None: until one side closes the connection.
        then: "end" closes the connection, "hang" keeps it open and says nothing more.
        level: grey level of the frames.
        size: (height, width).
        status: of the answer; another than 200 has no frames.
        answers: False says nothing at all.
    """

    frames: int | None = None
    then: str = "end"
    level: int = 100
    size: tuple[int, int] = (48, 64)
    status: int = 200
    answers: bool = True


class MjpegCamera:
    """A server on the loopback; the n-th request is treated as the n-th visit says."""

    def __init__(self, *visits: Visit, port: int = 0) -> None:
        self.visits = visits
        self.requests: list[str] = []
        self._over = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", port))
        self._open: list[socket.socket] = []
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/video.mjpg"
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def __enter__(self) -> MjpegCamera:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gone, as if the plug were pulled: connections end, new ones are refused."""
        if self._over.is_set():
            return
        self._over.set()
        self._socket.shutdown(socket.SHUT_RDWR)  # wakes accept
        self._socket.close()
        self._thread.join(5)
        for connection in self._open:
            connection.close()

    def _listen(self) -> None:
        while not self._over.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self._open.append(connection)
            request = connection.recv(4096).decode()
            if not request:  # somebody looked whether there is a server
                connection.close()
                continue
            visit = self.visits[min(len(self.requests), len(self.visits) - 1)]
            self.requests.append(request)
            threading.Thread(target=self._serve, args=(connection, visit), daemon=True).start()

    def _serve(self, connection: socket.socket, visit: Visit) -> None:
        try:
            if not visit.answers:
                self._over.wait(60)
                return
            connection.sendall(
                f"HTTP/1.0 {visit.status} whatever\r\n"
                "Content-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n".encode()
            )
            jpeg = cv2.imencode(".jpg", np.full((*visit.size, 3), visit.level, np.uint8))[1]
            part = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n" % (
                jpeg.size,
                jpeg.tobytes(),
            )
            sent = 0
            while visit.status == 200 and not self._over.is_set() and sent != visit.frames:
                connection.sendall(part)
                sent += 1
                time.sleep(1 / FPS)
            if visit.then == "hang":
                self._over.wait(60)
        except OSError:  # the other side left
            pass
        finally:
            connection.close()
