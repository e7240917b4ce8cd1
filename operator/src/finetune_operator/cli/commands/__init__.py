"""One file a command; each offers ``configure(parser)`` and ``execute(arguments)``."""
