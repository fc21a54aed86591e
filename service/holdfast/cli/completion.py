"""``holdfast --install-completion``: what the shell needs to complete commands and options."""

from __future__ import annotations

from cyclopts.completion.install import create_install_completion_command

from holdfast.cli.app import build_app

install = create_install_completion_command(build_app().install_completion, add_to_startup=True)
