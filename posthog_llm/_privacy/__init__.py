"""What may be sent: one choke point for content, credentials and media.

Every value of an event passes through here before it is sent, whatever its source.
"""

from __future__ import annotations

from .cleaning import Cleaner, Withheld
from .known_credentials import credentials_of
from .parameters import CLOSED, parameters
from .restriction import WITHHELD, restricted
from .vocabulary import is_known

__all__ = [
    "CLOSED",
    "WITHHELD",
    "Cleaner",
    "Withheld",
    "credentials_of",
    "is_known",
    "parameters",
    "restricted",
]
