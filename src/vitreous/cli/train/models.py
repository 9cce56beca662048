"""`vitreous models` -> a table of backbones; `vitreous models get` -> one of them in the cache."""

from vitreous.cli.options import AsJson
from vitreous.cli.screen import Screen, print_json, print_table
from vitreous.errors import ConfigError
from vitreous.model.weights.reading import hub
from vitreous.training.weights.backbones import BACKBONES, Backbone, backbone_named
from vitreous.training.weights.choice import download_to


def models(
    action: str | None = None,
    name: str | None = None,
    /,
    *,
    as_json: AsJson = False,
) -> None:
    """List backbones to start from, or download one; nothing is downloaded without `get`.

    Args:
        action: get, to download the backbone NAME; without it, all backbones are listed.
        name: A name in the list, or organization/name for another repository on the hub.
        as_json: Print one JSON document instead of text.
    """
    if action is None:
        _list(as_json)
        return
    if action != "get":
        raise ConfigError(f"action={action}: is not known; write `vitreous models` or `vitreous models get NAME`")
    if name is None:
        raise ConfigError(f"name=none: nothing to download; give one of {', '.join(BACKBONES)}")
    with Screen(stderr=as_json) as screen:
        repo = _announce(screen, name)
        folder = hub.fetch(repo, report=download_to(screen.listen), renew=True)
    found = hub.stored(repo)
    if as_json:
        print_json({"source": found and found.source, "path": str(folder), "sha256": found and found.sha256})
        return
    screen.say(f"{folder}: complete", style="bold green")
    if found is not None:
        screen.say(f"revision {found.revision}; its files are compared with these whenever they are opened")
    screen.say(f"next: vitreous train DATA --pretrained {name}")


def _announce(screen: Screen, name: str) -> str:
    """Say what will be downloaded, and return the repository."""
    if name not in BACKBONES and "/" in name:
        repo = name.removeprefix(hub.PREFIX)
        screen.say(f"{repo}: its size and license are on its page on the hub")
        return repo
    backbone = backbone_named(name)
    screen.say(f"{backbone.label} from {backbone.repo}")
    return backbone.repo


def _list(as_json: bool) -> None:
    if as_json:
        print_json([_fields(backbone) for backbone in BACKBONES.values()])
        return
    rows = [["name", "on the hub", "download", "input", "license", "cached", "strengths"]]
    for one in BACKBONES.values():
        size, side, cached = f"{one.num_bytes / 1e6:,.0f} MB", f"{one.config.img_size[0]} px", one.stored() is not None
        rows.append([one.name, one.repo, size, side, one.license, "yes" if cached else "no", one.strengths])
    with Screen() as screen:
        print_table(screen.console, rows, numbers_from=len(rows[0]))
        for one in BACKBONES.values():
            if one.terms:
                screen.say(f"\n{one.name}: to use it is to accept the terms of the {one.license}, {one.terms}")
        screen.say("\nnext:")
        screen.say("  vitreous models get NAME               download one")
        screen.say("  vitreous train DATA --pretrained NAME  start from one; auto chooses")


def _fields(backbone: Backbone) -> dict[str, object]:
    height, width = backbone.config.img_size
    return {
        "name": backbone.name,
        "repo": backbone.repo,
        "num_parameters": backbone.num_parameters,
        "num_bytes": backbone.num_bytes,
        "img_size": [height, width],
        "license": backbone.license,
        "terms": backbone.terms,
        "strengths": backbone.strengths,
        "is_cached": backbone.stored() is not None,
    }
