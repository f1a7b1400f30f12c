"""Commands for servers and shells: prepare, ui, reports, completion."""

import argparse
import shlex

from drive_assets.commands.common import tell, writable_storage

# compgen expands its words again, so names of folders that are not recordings must not get there: `$(rm x)` would run.
NAMES = "ls %(recordings)s 2>/dev/null | grep -xE '[0-9_-]+'"
COMPLETIONS = {
    "bash": f"""_drive_assets() {{
  COMPREPLY=($(compgen -W "%(words)s $({NAMES})" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _drive_assets drive-assets""",
    "zsh": f"""_drive_assets() {{ compadd -- %(words)s $({NAMES}); _files }}
compdef _drive_assets drive-assets""",
    "fish": f"""complete -c drive-assets -a "%(words)s ({NAMES})\"""",
}


def prepare(options: argparse.Namespace) -> bool:
    from drive_assets.running.ui import prepare_services

    writable_storage()
    tell(f"DAGSTER_HOME is {prepare_services()}.")
    return True


def ui(options: argparse.Namespace) -> bool:
    from drive_assets.running.ui import run_ui

    writable_storage()
    ports = (options.port, options.mlflow_port, options.reports_port)
    return run_ui(options.host, *ports, tell, has_token=not options.no_token) == 0


def reports(options: argparse.Namespace) -> bool:
    from drive_assets.definitions import defs
    from drive_assets.reports.server import serve
    from drive_assets.resources.storage import Storage
    from drive_assets.running.instance import open_instance

    with open_instance() as instance:
        serve(options.host, options.port, Storage.from_environment(), instance, defs.resolve_asset_graph())
    return True


def completion(options: argparse.Namespace) -> bool:
    """Words that a shell may complete: commands, options, assets, architectures, and the recordings of the moment."""
    from drive_assets.definitions import defs
    from drive_assets.resources.storage import Storage
    from model.network.architectures import ARCHITECTURES

    assets = sorted(key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys())
    recordings = shlex.quote(str(Storage.from_environment().recordings))
    words = " ".join([*options.words, *assets, *ARCHITECTURES])
    tell(COMPLETIONS[options.shell] % {"words": words, "recordings": recordings}, wrap=False)
    return True
