class StackError(Exception):
    """What went wrong and how to put it right, in one line for the person at the terminal."""
