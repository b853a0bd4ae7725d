"""Errors that the command line tells in one sentence, kept apart from what is slow to import."""


class NotebookError(RuntimeError):
    """A notebook that stopped before its end: one sentence naming it, the cell and the exception."""
