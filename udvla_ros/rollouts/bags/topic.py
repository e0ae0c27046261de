"""What every file of the room speaks of: a bag's topics, and what is wrong with a bag."""

from __future__ import annotations

from dataclasses import dataclass

from udvla_ros.errors import UdvlaError

METADATA = "metadata.yaml"


class BagError(UdvlaError):
    """A folder is no bag, or its bag cannot be read as it is."""


@dataclass
class Topic:
    """One topic of a bag; ``qos`` is the text that the recorder wrote, ``count`` the messages of all files."""

    name: str
    type: str
    qos: str = ""
    type_hash: str = ""
    count: int = 0
