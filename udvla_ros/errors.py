"""The one family of errors a user is meant to read.

Every subclass carries a single line that names the cause and the mend. The command line prints that
line and exits with :attr:`UdvlaError.exit_code`; nodes log it and refuse. Anything else that escapes
is a bug and keeps its traceback.
"""

from __future__ import annotations


class UdvlaError(RuntimeError):
    """Base of all errors that name their cause and their mend in one line."""

    exit_code = 2


class BundleError(UdvlaError):
    """A checkpoint bundle is missing a part, or its parts do not belong together."""


class ContractError(UdvlaError):
    """The robot does not offer what the bundle needs, or the other way round."""


class ConfigError(UdvlaError):
    """A configuration file is missing a key or contradicts itself."""


class TokenError(UdvlaError):
    """A token sequence cannot be made or cannot be read back (a malformed action code, say)."""


class ObservationError(UdvlaError):
    """An observation is absent, stale, of the wrong encoding or the wrong size."""
