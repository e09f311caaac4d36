"""Entry point: every mistake of a user ends in one clear message and an exit code, never in a traceback."""

from __future__ import annotations

import sys

from srm_agent.errors import ConfigurationError, SrmError, UsageError

EXIT_FAILURE, EXIT_USAGE, EXIT_CONFIGURATION, EXIT_INTERRUPTED = 1, 64, 78, 130
TYPER_USAGE = 2


def main() -> None:
    """`srm-agent`, `python -m srm_agent`."""
    sys.exit(run())


def run(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code."""
    try:
        from srm_agent.cli import app

        app(arguments)
    except SrmError as error:
        return _explained(error)
    except BaseExceptionGroup as group:  # the daemon's task group wraps what ended it
        error_inside = _srm_error_in(group)
        if error_inside is None:
            raise
        return _explained(error_inside)
    except KeyboardInterrupt:
        return _fail(EXIT_INTERRUPTED, "interrupted")
    except SystemExit as leave:  # typer has said what was wrong with the words of the command; its code for that is 2
        return EXIT_USAGE if leave.code == TYPER_USAGE else leave.code if isinstance(leave.code, int) else 0
    return 0


def _explained(error: SrmError) -> int:
    match error:
        case ConfigurationError():
            return _fail(EXIT_CONFIGURATION, str(error))
        case UsageError():
            return _fail(EXIT_USAGE, str(error))
        case _:
            return _fail(EXIT_FAILURE, str(error))


def _srm_error_in(group: BaseExceptionGroup[BaseException]) -> SrmError | None:
    """The error to tell, if all that the group holds are errors that were raised on purpose."""
    found: SrmError | None = None
    for error in group.exceptions:
        inner = _srm_error_in(error) if isinstance(error, BaseExceptionGroup) else error
        if not isinstance(inner, SrmError):
            return None
        found = found or inner
    return found


def _fail(code: int, message: str) -> int:
    sys.stderr.write(f"srm-agent: {message}\n")
    return code


if __name__ == "__main__":
    main()
