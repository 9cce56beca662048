"""Report input -> how to use the model and to repeat the run: commands, seed, versions, hardware, configuration."""

from html import escape
from shlex import quote

from vitreous.paths import expanded
from vitreous.recipe.files import as_yaml
from vitreous.use.html import markup
from vitreous.use.report.section import ReportInput, Section


def reproduce_section(report: ReportInput) -> Section:
    """Show commands and everything that the result depends on."""
    run, start = report.run, report.last("start")
    commands = [f"vitreous predict {run} IMAGE", f"vitreous evaluate {run} DATA", f"vitreous explain {run} IMAGE",
                f"vitreous train --recipe {quote(str(report.folder.config))}"]  # fmt: skip
    facts = {"seed": report.config.train.seed, "fingerprint of the data": report.metadata.get("data_fingerprint")}
    facts |= {**start.get("hardware", {}), **start.get("software", {})}
    config, home = as_yaml(report.config), str(expanded("~"))
    if len(home) > 1:  # a report is sent to others, and a path has the name of its user
        config = config.replace(f"{home}/", "~/")
    rows = [(escape(str(name)), escape(str(value))) for name, value in facts.items() if value is not None]
    parts = (
        *map(markup.command, commands),
        markup.table(("fact", "value"), rows),
        f'<details><summary>All settings as in config.yaml</summary><pre tabindex="0">{escape(config)}</pre></details>',
    )
    return Section("reproduce", "Use it, repeat it", parts, {"commands": commands, **facts})
