"""``stellwerk compute``."""

from typing import TYPE_CHECKING

import click

from stellwerk.cli.options import output_option

if TYPE_CHECKING:
    from stellwerk.compute import AmlCompute


@click.group()
def compute() -> None:
    """Create, list, show, change and delete clusters."""


@compute.command("create")
@click.argument("name")
@click.option("--max-nodes", type=int, required=True, help="Most nodes it may have.")
@click.option("--min-nodes", type=int, default=0, show_default=True, help="Nodes it always has.")
@click.option("--idle-seconds", type=int, help="An idle node goes after so many seconds.")
@click.option("--slots", type=int, default=1, show_default=True, help="Runs at once on a node.")
@click.option("--vm-size", default="", help="A machine size, kept for your records.")
@click.option("--description")
@output_option
def create(
    name: str,
    max_nodes: int,
    min_nodes: int,
    idle_seconds: int | None,
    slots: int,
    vm_size: str,
    description: str | None,
    output: str,
) -> None:
    """Create a cluster."""
    from stellwerk.compute import AmlCompute, ComputeTarget
    from stellwerk.workspace import Workspace

    settings = AmlCompute.provisioning_configuration(
        vm_size=vm_size,
        min_nodes=min_nodes,
        max_nodes=max_nodes,
        idle_seconds_before_scaledown=idle_seconds,
        description=description,
        slots_per_node=slots,
    )
    _show(ComputeTarget.create(Workspace.from_config(), name, settings), output)


@compute.command("list")
@output_option
def list_clusters(output: str) -> None:
    """List all clusters."""
    from stellwerk.api import ComputeView
    from stellwerk.cli.output import print_list
    from stellwerk.workspace import Workspace

    print_list(
        Workspace.from_config().client.pages("/compute", ComputeView),
        {
            "name": lambda view: view.name,
            "nodes": lambda view: view.current_nodes,
            "target": lambda view: view.target_nodes,
            "min": lambda view: view.min_nodes,
            "max": lambda view: view.max_nodes,
            "queued": lambda view: view.queued_runs,
            "idle_s": lambda view: view.idle_seconds_before_scaledown,
            "state": lambda view: view.allocation_state,
        },
        output,
    )


@compute.command("show")
@click.argument("name")
@output_option
def show(name: str, output: str) -> None:
    """Show one cluster and its nodes."""
    _show(_find(name), output)


@compute.command("update")
@click.argument("name")
@click.option("--max-nodes", type=int)
@click.option("--min-nodes", type=int)
@click.option("--idle-seconds", type=int)
@output_option
def update(
    name: str, max_nodes: int | None, min_nodes: int | None, idle_seconds: int | None, output: str
) -> None:
    """Change a cluster's scale settings."""
    found = _find(name)
    found.update(min_nodes, max_nodes, idle_seconds)
    _show(found, output)


@compute.command("delete")
@click.argument("name")
def delete(name: str) -> None:
    """Delete a cluster."""
    _find(name).delete()
    click.echo(f"{name}: deleted", err=True)


def _find(name: str) -> "AmlCompute":
    from stellwerk.api import ComputeView
    from stellwerk.client import segment
    from stellwerk.compute import AmlCompute
    from stellwerk.workspace import Workspace

    workspace = Workspace.from_config()
    view = workspace.client.get(f"/compute/{segment(name)}", ComputeView)
    return AmlCompute.of_view(workspace, view)


def _show(found: "AmlCompute", output: str) -> None:
    from stellwerk.cli.output import print_one

    print_one(found.view, output)
