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
    from srm_agent.cli import app

    try:
        app(arguments)
    except ConfigurationError as error:
        return _fail(EXIT_CONFIGURATION, str(error))
    except UsageError as error:
        return _fail(EXIT_USAGE, str(error))
    except SrmError as error:
        return _fail(EXIT_FAILURE, str(error))
    except KeyboardInterrupt:
        return _fail(EXIT_INTERRUPTED, "interrupted")
    except SystemExit as leave:  # typer has said what was wrong with the words of the command; its code for that is 2
        return EXIT_USAGE if leave.code == TYPER_USAGE else leave.code if isinstance(leave.code, int) else 0
    return 0


def _fail(code: int, message: str) -> int:
    sys.stderr.write(f"srm-agent: {message}\n")
    return code


if __name__ == "__main__":
    main()
