"""`meshctl completion`: prints the script that completes commands and options in a shell, click's own."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

PROGRAM = "meshctl"
VARIABLE = "_MESHCTL_COMPLETE"
"""By which a shell tells the program to complete a line: click's name for it."""
SHELLS = ("bash", "fish", "zsh")


@click.command(short_help="Print a script that completes commands in bash, zsh or fish.")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script that completes commands and options of meshctl in your shell.

    \b
    bash:  source <(meshctl completion bash)      in ~/.bashrc; needs bash 4.4 or newer
    zsh:   source <(meshctl completion zsh)       in ~/.zshrc, after compinit
    fish:  meshctl completion fish | source       in ~/.config/fish/config.fish
    """  # noqa: D301 the character before the lines keeps click from filling them
    kind = get_completion_class(shell)
    assert kind is not None
    # Without `source`, which for bash would run bash to ask for its version: this may be another machine.
    made = kind(context.find_root().command, {}, PROGRAM, VARIABLE)
    click.echo(made.source_template % made.source_vars())
