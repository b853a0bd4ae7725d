"""The commands of `radapter-lite`, one file each: `add` says what the command takes, `execute` does it.

A file's docstring is what --help says: a title, a paragraph and an example. `PARENTS` are parsers of what several
commands take. A command may return an exit code; nothing is 0. What is heavy is imported inside `execute`, so that
--help answers at once.
"""
