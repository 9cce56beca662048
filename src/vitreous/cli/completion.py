"""`vitreous completion` -> a script with which a shell completes commands, options, names and paths."""

import re

from vitreous.cli.main import app
from vitreous.errors import UnknownNameError, nearest

_ZSH_END = """
_vitreous_or_files() {{ {function} "$@"; (( compstate[nmatches] )) || _files }}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
  _vitreous_or_files "$@"
else
  compdef _vitreous_or_files vitreous
fi
"""


def completion(shell: str, /) -> None:
    """Print a script with which a shell completes commands, options, names and paths; new shells read it from a file.

    For bash: `vitreous completion bash > ~/.local/share/bash-completion/completions/vitreous`. This needs the
    package bash-completion.

    For zsh: `vitreous completion zsh > ~/.zfunc/_vitreous`, if `~/.zfunc` is in `$fpath`.

    For fish: `vitreous completion fish > ~/.config/fish/completions/vitreous.fish`.

    The shell does not create a folder for the file: if it is missing, create it with `mkdir -p` first.

    Args:
        shell: bash, zsh or fish.
    """
    scripts = {"bash": _bash, "zsh": _zsh, "fish": _fish}
    if shell not in scripts:
        raise UnknownNameError(f"shell={shell}: no script for this shell; {nearest(shell, scripts)}")
    print(scripts[shell]())


# The parser's scripts complete paths only for options that are nothing but paths. Many of ours are a name or a path.


def _bash() -> str:
    return app.generate_completion(shell="bash").replace("complete -F", "complete -o default -F")


def _zsh() -> str:
    script = app.generate_completion(shell="zsh")
    function = re.search(r"^(\w+)\(\) *\{", script, re.MULTILINE)
    return script + _ZSH_END.format(function=function[1] if function else "_vitreous")


def _fish() -> str:
    return app.generate_completion(shell="fish").replace(" -x -a ", " -r -F -a ")
