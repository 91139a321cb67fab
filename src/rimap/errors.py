"""The one exception for what a user can mend."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input: the message says what was expected, what came and what to do.

    The command line prints it and exits with status 2; anything else that is raised is a defect of rimap.
    """
