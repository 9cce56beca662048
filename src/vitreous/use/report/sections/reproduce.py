"""Report input -> how to use the model and to repeat the run: commands, seed, versions, hardware, configuration."""

from html import escape
from shlex import quote

from vitreous.paths import expanded
from vitreous.recipe.files import as_yaml
from vitreous.use import markup
from vitreous.use.report.section import ReportInput, Section


def reproduce_section(report: ReportInput) -> Section:
    """Show commands and everything that the result depends on."""
    run, start, metadata = report.run, report.last("start"), report.metadata
    commands = [
        f"vitreous predict {run} IMAGE",
        f"vitreous evaluate {run} DATA",
        f"vitreous explain {run} IMAGE",
        f"vitreous train --recipe {quote(str(report.folder.config))}",
    ]
    hardware, software = start.get("hardware", {}), start.get("software", {})
    facts = {
        "seed": report.config.train.seed,
        "recipe": report.config.recipe,
        "fingerprint of the data": metadata.get("data_fingerprint", "unknown"),
        **{name: value for name, value in hardware.items() if value is not None},
        **{name: value for name, value in software.items() if value is not None},
    }
    config, home = as_yaml(report.config), str(expanded("~"))
    if len(home) > 1:  # a report is sent to others, and a path has the name of its user
        config = config.replace(f"{home}/", "~/")
    parts = (
        *map(markup.command, commands),
        markup.table(("fact", "value"), [(escape(str(name)), escape(str(value))) for name, value in facts.items()]),
        markup.details("Every setting, as in config.yaml", f'<pre tabindex="0">{escape(config)}</pre>'),
    )
    return Section("reproduce", "Use it, repeat it", parts, {"commands": commands, **facts})
