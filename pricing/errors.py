"""The tree of exceptions: the class tells the caller what to do.

::

    PricingError                 something Lodemark can name went wrong
    ├── ConfigError              stop: the operator must mend a settings file
    ├── StoreError               stop: the working store refuses (kind, order of vintages, integrity)
    ├── SourceError              this source fails, the others go on
    │   ├── FetchError           try again later (``permanent`` says when not to)
    │   └── ParseError           the document is not what it should be: look at it
    ├── UnitError                a conversion that has no published factor
    ├── MethodError              the methodology does not allow what was asked
    ├── DecisionError            a person's decision is refused: nothing was recorded
    ├── DeliveryError            one message did not go out: try it again later (``permanent`` says when not to)
    │   ├── ChannelDown          nobody's message would go out now: pause, and count it against no message
    │   └── AddressRefused       this address takes no message any more: send it nothing further
    └── ReleaseError             a release cannot be made, or does not verify
        └── VerificationError    one named file or signature is wrong

Doubtful *values* are never exceptions: they are findings (``pricing.quality``).
"""

from __future__ import annotations


class PricingError(Exception):
    """Base of all errors that Lodemark raises on purpose."""


class ConfigError(PricingError):
    """A settings file is wrong; the message lists every mistake with its path."""


class StoreError(PricingError):
    """The working store refuses a write or cannot be opened."""


class SourceError(PricingError):
    """One source failed; other sources are not affected."""


class FetchError(SourceError):
    """A document could not be fetched."""

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent


class ParseError(SourceError):
    """A document is not in the layout its publisher is known for; names the cell or element."""


class UnitError(PricingError):
    """No published factor leads from one unit to the other."""


class MethodError(PricingError):
    """The methodology does not allow what was asked."""


class DecisionError(PricingError):
    """A decision by hand is not one that can be taken; the message says why."""


class DeliveryError(PricingError):
    """A message did not go out. ``wait`` is the least number of seconds before another attempt, where that was told."""

    def __init__(self, message: str, *, permanent: bool = False, wait: float = 0.0) -> None:
        super().__init__(message)
        self.permanent, self.wait = permanent, wait


class ChannelDown(DeliveryError):
    """The server is away, refuses its password or cannot be trusted: whatever one would send now, it did not go out."""


class AddressRefused(DeliveryError):
    """The address does not exist, or its owner wants nothing from us."""

    def __init__(self, message: str) -> None:
        super().__init__(message, permanent=True)


class ReleaseError(PricingError):
    """A release cannot be made."""


class VerificationError(ReleaseError):
    """A release, or one file of it, is not what was signed."""
