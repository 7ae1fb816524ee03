"""A node that remembers what it subscribed to and what it published."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass
class Publisher:
    published: list[Any]

    def publish(self, message: Any) -> None:
        self.published.append(message)


class Node:
    def __init__(self, name: str) -> None:
        self.name = name
        self.subscriptions: list[tuple[type, Callable[[Any], None]]] = []
        self.published: list[Any] = []

    def create_publisher(self, kind: type, topic: str, qos: object) -> Publisher:
        return Publisher(self.published)

    def create_subscription(
        self, kind: type, topic: str, callback: Callable[[Any], None], qos: object
    ) -> None:
        self.subscriptions.append((kind, callback))
