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


class ReleaseError(PricingError):
    """A release cannot be made."""


class VerificationError(ReleaseError):
    """A release, or one file of it, is not what was signed."""
