"""Makes a data folder ready for its supervisor: folders, ports, secrets, configuration files."""

from stellwerk.errors import UserError
from stellwerk_embedded import binaries, credentials, nats_config, ports, s3_config
from stellwerk_embedded.layout import Layout


def folder(layout: Layout) -> None:
    """Make the folders. Raises UserError where that is not possible."""
    try:
        layout.create()
    except OSError as error:
        raise UserError(
            f"data: cannot use {layout.home}: {error.strerror or error}. "
            "Name another folder with --data, or set STELLWERK_HOME.",
            code="data.unusable",
            field="data",
        ) from error


def everything(layout: Layout, base_port: int | None) -> dict[str, int]:
    """Write all files; returns the ports. Raises UserError, naming what is in the way."""
    binaries.NATS.check()
    binaries.WEED.find()
    chosen = ports.choose(layout.ports_file, base_port)
    credentials.ensure(layout)
    nats_config.write(layout, chosen)
    s3_config.write(layout, chosen)
    credentials.write_client_file(layout, chosen)
    return chosen
