"""Recording of the inputs of a model's layers."""

from .account import RecordingAccount
from .recorder import Recording, record

__all__ = ["Recording", "RecordingAccount", "record"]
