"""Build the wheel and the sdist, install each into a new environment, and try the commands there.

    python .ci/check_packages.py [--constrain torch==2.13.0] [PYTHON…]

PYTHON is any number of interpreters; by default all of python3.11 to python3.14 that run. The wheel is installed with
the newest dependencies in each; the sdist is installed in the oldest Python with the lowest dependencies that
pyproject.toml allows, which were made for it. An environment takes minutes and several GB, so `make test` does none of
this.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
_IMPORT_S = 1.0
"""Seconds that `import vitreous` may take, which imports no torch."""
_IMPORT = """
import sys, time
began_s = time.process_time()
import vitreous
print(time.process_time() - began_s, [name for name in ("torch", "numpy", "sklearn", "PIL") if name in sys.modules])
"""


def lowest() -> list[str]:
    """Return a constraint for each dependency: the newest release of the lowest version that it may have."""
    found = [re.match(r"([\w-]+)>=([\d.]+)", requirement) for requirement in PROJECT["dependencies"]]
    return sorted({f"{match[1]}=={match[2]}.*" for match in found if match})


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Run a command and return its output. Its errors are shown, and end this script."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=env, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: failed with exit code {done.returncode}\n{done.stdout}")
    return done.stdout


def environment(python: str, place: Path, *packages: str | Path) -> Path:
    """Create an environment with packages; return its folder of programs."""
    run(python, "-m", "venv", place)
    programs = place / ("Scripts" if os.name == "nt" else "bin")
    run(programs / "python", "-m", "pip", "install", "--quiet", "--upgrade", "pip>=25.1")
    run(programs / "python", "-m", "pip", "install", "--quiet", *packages)
    return programs


def check(python: str, package: Path, constraints: Sequence[str], place: Path) -> None:
    """Install a package and try the commands that a new user types."""
    place.mkdir()
    (place / "constraints.txt").write_text("\n".join(constraints), encoding="utf-8")
    programs = environment(python, place / "venv", package, "--constraint", place / "constraints.txt")
    run(programs / "python", "-m", "pip", "check")
    seconds, imported = run(programs / "python", "-c", _IMPORT, cwd=place).split(maxsplit=1)
    if float(seconds) > _IMPORT_S or imported.strip() != "[]":
        sys.exit(f"import vitreous: takes {seconds} s and imports {imported.strip()}")
    vitreous = programs / "vitreous"
    for words in (
        ["--version"], [], ["--help"], ["train", "digits", "--epochs", "1", "--out", "run"],
        ["predict", "run", "run/example.png"],
        ["evaluate", "run"], ["explain", "run", "run/example.png"], ["report", "run"], ["completion", "bash"],
    ):  # fmt: skip
        run(vitreous, *words, cwd=place)
    found = json.loads(run(vitreous, "env", "--json", cwd=place))["software"]
    versions = ", ".join(f"{name} {found[name]}" for name in ("vitreous", "torch", "numpy", "pillow"))
    print(f"{package.name}: works in {python} with {versions}", flush=True)


def check_extras(programs: Path, wheel: Path) -> None:
    """Let pip resolve all extras together, without installing them."""
    extras = ",".join(sorted(PROJECT["optional-dependencies"]))
    run(programs / "python", "-m", "pip", "install", "--quiet", "--dry-run", f"{wheel}[{extras}]")
    print(f"extras: {extras} resolve together", flush=True)


def main() -> None:
    """Build, then check each package."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("python", nargs="*")
    parser.add_argument(
        "--constrain", action="append", default=[], help="overrides a lowest version, e.g. torch==2.13.0"
    )
    given = parser.parse_args()
    names = given.python or [f"python3.{minor}" for minor in range(11, 15)]
    pythons = [
        name
        for name in names
        if shutil.which(name) and not subprocess.call([name, "-c", ""], stderr=subprocess.DEVNULL)
    ]
    overridden = {constraint.partition("=")[0] for constraint in given.constrain}
    with tempfile.TemporaryDirectory(prefix="vitreous-packages-") as folder:
        place = Path(folder)
        programs = environment(pythons[0], place / "build", "build")
        run(programs / "python", "-m", "build", "--outdir", place, ROOT)
        wheel, sdist = next(place.glob("*.whl")), next(place.glob("*.tar.gz"))
        check_extras(programs, wheel)
        for number, python in enumerate(pythons):
            check(python, wheel, given.constrain, place / f"newest-{number}")
        constraints = [line for line in lowest() if line.partition("=")[0] not in overridden]
        check(pythons[0], sdist, [*constraints, *given.constrain], place / "lowest")


if __name__ == "__main__":
    main()
