"""`marquee --help` in sections. Typer's own need rich, which would read a user's names as markup."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

BUILD, SERVE, DEPLOY, CLOUD = "Build an archive", "Serve it here", "Deploy it", "Local cloud"
ORDER = (BUILD, SERVE, DEPLOY, CLOUD)


class PanelGroup(TyperGroup):
    """A group that lists its commands below their ``rich_help_panel``, in the order of ``ORDER``."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write one section a panel, its commands in the order in which they were registered."""
        limit = formatter.width - 6 - max(map(len, self.commands))
        for panel in ORDER:
            rows = [
                (name, command.get_short_help_str(limit))
                for name, command in self.commands.items()
                if getattr(command, "rich_help_panel", None) == panel
            ]
            with formatter.section(panel):
                formatter.write_dl(rows)
