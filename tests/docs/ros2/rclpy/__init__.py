"""Stands in for ROS 2's client library: as much of it as a page of the documentation uses.

`spin` gives every subscription one picture, and checks that a label map of its size comes back.
"""

from __future__ import annotations

from sensor_msgs.msg import Image

from rclpy.node import Node

HEIGHT, WIDTH, STEP = 48, 64, 208  # rows are padded, as drivers may


def init() -> None:
    """Nothing to begin."""


def spin(node: Node) -> None:
    """One message, then the end."""
    for kind, callback in node.subscriptions:
        assert kind is Image
        data = bytes(range(STEP)) * HEIGHT
        callback(Image("stamp", HEIGHT, WIDTH, "bgr8", 0, STEP, data))
    (labels,) = node.published
    assert (labels.header, labels.height, labels.width) == ("stamp", HEIGHT, WIDTH)
    assert (labels.encoding, labels.step, len(labels.data)) == ("mono8", WIDTH, HEIGHT * WIDTH)
