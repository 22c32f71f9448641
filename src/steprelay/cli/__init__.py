"""The command line. Every command imports what it needs when it runs, so that `steprelay --help` is quick."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from ..core.errors import BadInput, ConfigError, StepRelayError
from . import admin, build, demo, dev, imports, init, run, runs, serve

_COMMANDS = (
    demo.demo,
    dev.dev,
    run.run,
    runs.runs,
    serve.serve,
    init.init,
    build.build,
    admin.doctor,
    admin.migrate,
    admin.sweep,
    admin.prune,
    imports.imports,
)


class InOrder(click.Group):
    """Lists its commands as they were added: the first thing to try comes first."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=InOrder, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="steprelay", message="steprelay %(version)s")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def cli(debug: bool) -> None:
    """AI agents on serverless functions: one durable step per request, carried on by whoever is alive."""
    if debug:
        os.environ["STEPRELAY_DEBUG"] = "1"


for _command in _COMMANDS:
    cli.add_command(_command)


def main(arguments: Sequence[str] | None = None, *, command: click.Command = cli) -> None:
    """Run a command and exit: 0 well, 1 it failed, 2 it was called wrongly. Errors are one line; --debug has the rest."""
    try:
        sys.exit(command.main(args=arguments, prog_name="steprelay", standalone_mode=False) or 0)
    except click.exceptions.NoArgsIsHelpError as e:
        click.echo(e.ctx.get_help() if e.ctx else cli.get_help(click.Context(cli)), err=True)
        code = 2
    except click.UsageError as e:
        path = e.ctx.command_path if e.ctx else "steprelay"
        code = _say(f"{e.format_message()} See {path} --help.", 2)
    except click.ClickException as e:
        code = _say(e.format_message(), 1)
    except (click.Abort, KeyboardInterrupt):
        code = 130
    except (ConfigError, BadInput) as e:
        code = _say(str(e), 2)
    except StepRelayError as e:
        code = _say(str(e), 1)
    except BrokenPipeError:  # `steprelay runs list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as e:
        if os.environ.get("STEPRELAY_DEBUG"):
            raise
        said = f"{type(e).__name__}: {e}".splitlines()[0]
        code = _say(
            f"{said}. This is not what should happen; steprelay --debug {sys.argv[1] if sys.argv[1:] else ''} … shows where.", 1
        )
    sys.exit(code)


def _say(line: str, code: int) -> int:
    if os.environ.get("STEPRELAY_DEBUG"):
        import traceback

        traceback.print_exc()
    click.echo(f"steprelay: {' '.join(line.split())}", err=True)
    return code


__all__ = ["cli", "main"]
