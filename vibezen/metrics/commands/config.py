"""`vibezen-metrics config check|show`"""

import json
import sys
from typing import Annotated

import typer

from vibezen.metrics.commands.options import Config, RedisUrl, StorageDir, load_settings

app = typer.Typer(no_args_is_help=True, help="The configuration that holds here.")


@app.command()
def check(config: Config = None, redis_url: RedisUrl = None, storage_dir: StorageDir = None) -> None:
    """Say whether the configuration is valid; exit code 2 when it is not."""
    settings = load_settings(config, redis_url, storage_dir)
    print(f"{settings.source}: ok" if settings.source else "no vibezen.yaml from here upwards; the defaults are valid")


@app.command()
def show(
    config: Config = None,
    redis_url: RedisUrl = None,
    storage_dir: StorageDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of YAML.")] = False,
) -> None:
    """Print every setting as it holds here, file and environment applied, passwords left out."""
    settings = load_settings(config, redis_url, storage_dir)
    from vibezen.metrics.config import public_view

    view = public_view(settings)
    view.pop("source")
    tree = {"vibezen": {"metrics": view}}
    if as_json:
        print(json.dumps(tree, indent=2))
        return
    import yaml

    print(f"# {settings.source or 'no vibezen.yaml from here upwards: defaults and environment'}")
    yaml.safe_dump(tree, sys.stdout, sort_keys=False, allow_unicode=True)
