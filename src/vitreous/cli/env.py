"""`vitreous env` -> what this installation and machine have, how fast they are, and what is slow."""

from collections.abc import Iterator, Mapping
from typing import Any

from vitreous.cli.options import AsJson
from vitreous.cli.screen import Screen, print_facts, print_json
from vitreous.training.measure.environment import describe_environment
from vitreous.wording import plural


def env(*, as_json: AsJson = False) -> None:
    """Check this installation and the speed of this machine; say what is slow and what helps.

    Args:
        as_json: Print one JSON document instead of text.
    """
    found = describe_environment()
    if as_json:
        print_json(found)
        return
    screen = Screen()
    print_facts(screen, _facts(found))
    screen.say()
    if not found["slow"]:
        screen.say("nothing here slows training", style="bold green")
        return
    screen.say("slow:", style="bold")
    for number, sentence in enumerate(found["slow"], 1):
        screen.say(f"{number}. {sentence}", style="yellow")


def _facts(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    software, hardware, instructions = found["software"], found["hardware"], found["instructions"]
    revision = f" ({software['git_revision']})" if software["git_revision"] else ""
    yield "vitreous", f"{software['vitreous']}{revision}"
    yield "python", f"{hardware['python']}, {hardware['platform']}"
    yield "torch", f"{software['torch']} (built for {software['torch_build']})"
    yield "gpu", _gpus(found)
    names = {"bf16": "AVX-512 BF16", "amx": "AMX"}
    has = [instructions["vector"], *(text for name, text in names.items() if instructions[name])]
    yield "processor", f"{hardware['device_name']} ({', '.join(has)})" if not found["gpus"] else ", ".join(has)
    cores = f"{hardware['usable_cpus']} usable of {hardware['cpus']}"
    load = "" if found["load"] is None else f", load {found['load']:.1f}"
    yield "cores", f"{cores}, {plural(hardware['threads'], 'thread')}{load}"
    for device, speeds in found["products_per_s"].items():
        texts = (f"{precision} {speed / 1e9:,.0f}" for precision, speed in speeds.items())
        yield f"speed, {device}", f"{', '.join(texts)} billion products/s; training uses {found['precision']}"
    memory = found["memory"]
    free = "" if memory["available_bytes"] is None else f"{memory['available_bytes'] / 1e9:.1f} GB available of "
    yield "memory", f"{free}{memory['total_bytes'] / 1e9:.1f} GB"
    for name in ("cache", "runs"):
        place = found[name]
        yield name, f"{place['folder']}, {place['free_bytes'] / 1e9:,.1f} GB free"
    yield "reads", ", ".join(name for name, is_there in found["codecs"].items() if is_there)
    missing = [name for name, is_there in found["codecs"].items() if not is_there]
    if missing:
        yield "cannot read", ", ".join(missing)
    packages = (f"{name} {version or 'missing'}" for name, version in found["packages"].items())
    yield "optional", ", ".join(packages)


def _gpus(found: Mapping[str, Any]) -> str:
    gpus = [f"{gpu['name']}, {gpu['memory_bytes'] / 1e9:.0f} GB" for gpu in found["gpus"]]
    return "; ".join(gpus) or ("Apple GPU (mps)" if found["mps"] else "none")
