class CdcError(Exception):
    """What went wrong, in one line for the person at the terminal."""


class WrongInput(CdcError):
    """What was given cannot be used; nothing was done."""
