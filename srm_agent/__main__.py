"""Entry point: every mistake of a user ends in one clear message and an exit code, never in a traceback."""

from __future__ import annotations

import sys

import click
import typer

from srm_agent.errors import ConfigurationError, SrmError, UsageError

EXIT_FAILURE, EXIT_USAGE, EXIT_CONFIGURATION = 1, 64, 78


def main() -> None:
    """`srm-agent`, `python -m srm_agent`."""
    sys.exit(run())


def run(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code."""
    from srm_agent.cli import app

    try:
        outcome = app(arguments, standalone_mode=False)
    except ConfigurationError as error:
        return _fail(EXIT_CONFIGURATION, str(error))
    except UsageError as error:
        return _fail(EXIT_USAGE, str(error))
    except SrmError as error:
        return _fail(EXIT_FAILURE, str(error))
    except click.UsageError as error:
        return _fail(EXIT_USAGE, error.format_message())
    except click.ClickException as error:
        return _fail(EXIT_FAILURE, error.format_message())
    except (click.Abort, KeyboardInterrupt):
        return _fail(130, "interrupted")
    except typer.Exit as leave:
        return leave.exit_code
    return outcome if isinstance(outcome, int) else 0


def _fail(code: int, message: str) -> int:
    sys.stderr.write(f"srm-agent: {message}\n")
    return code


if __name__ == "__main__":
    main()
