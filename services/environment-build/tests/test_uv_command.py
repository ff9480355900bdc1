"""What reaches the installer: the operator's index, and nothing else of a shell."""

from pathlib import Path

from stellwerk_environment_build.uv_command import (
    IndexOptions,
    install_command,
    operator_config,
    resolve_command,
    secrets_in,
    uv_environment,
)


def test_environment_is_an_explicit_list() -> None:
    shell = {
        "PATH": "/bin",
        "PIP_INDEX_URL": "https://bob:pass-word@mirror.invalid/simple",
        "https_proxy": "http://proxy.invalid:3128",
        "SSL_CERT_FILE": "/etc/ca.pem",
        "UV_PRERELEASE": "allow",
        "UV_OVERRIDE": "x.txt",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": "/x",
        "SOURCE_DATE_EPOCH": "1",
        "STELLWERK_SECRET": "x",
    }
    given = uv_environment(shell, cache=Path("/c"), config_file=None)
    assert given == {
        "PATH": "/bin",
        "LC_ALL": "C.UTF-8",
        "UV_DEFAULT_INDEX": "https://bob:pass-word@mirror.invalid/simple",
        "HTTPS_PROXY": "http://proxy.invalid:3128",
        "SSL_CERT_FILE": "/etc/ca.pem",
        "UV_NO_CONFIG": "1",
        "UV_CACHE_DIR": "/c",
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_INDEX_STRATEGY": "first-index",
        "RUST_LOG": "reqwest_retry=warn",
    }
    assert secrets_in(shell) == ("pass-word",)


def test_first_source_of_a_setting_wins() -> None:
    shell = {"UV_DEFAULT_INDEX": "https://a.invalid", "PIP_INDEX_URL": "https://b.invalid"}
    given = uv_environment(shell, cache=Path("/c"), config_file=Path("/u.toml"))
    assert given["UV_DEFAULT_INDEX"] == "https://a.invalid"
    assert given["UV_CONFIG_FILE"] == "/u.toml"
    assert "UV_NO_CONFIG" not in given


def test_configuration_of_the_user_is_found(tmp_path: Path) -> None:
    assert operator_config({"HOME": str(tmp_path), "UV_CONFIG_FILE": "/missing"}) is None
    config = tmp_path / ".config/uv/uv.toml"
    config.parent.mkdir(parents=True)
    config.touch()
    assert operator_config({"HOME": str(tmp_path)}) == config


def test_commands_name_no_address_and_demand_hashes_and_wheels() -> None:
    lock, python = Path("lock"), Path("python")
    install = install_command(lock, python, IndexOptions())
    resolve = resolve_command(Path("wanted"), lock, python, IndexOptions())
    assert "--require-hashes" in install
    assert "--generate-hashes" in resolve
    assert not [word for word in install + resolve if "://" in word]
    assert "--only-binary" in install
    assert "--only-binary" in resolve
    assert "--only-binary" not in install_command(lock, python, IndexOptions(allow_sdist=True))
