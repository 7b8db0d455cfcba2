"""Blocks that no scene shows and no parser of ours reads: each with the test that holds it, or why nothing here can.

A block is named by its page and one of its lines.
"""

from __future__ import annotations

from collections.abc import Mapping

TESTED: Mapping[tuple[str, str], str] = {
    ("docs/from-aglow", 'name = "branch"'): "tests/test_from_aglow.py",
    ("docs/from-aglow", 'name = "solutions"'): "tests/test_from_aglow.py",
    ("docs/from-aglow", 'name = "averaging"'): "tests/test_from_aglow.py",
    ("docs/from-aglow", 'name = "sandbox"'): "tests/test_from_aglow.py",
    (
        "docs/configure",
        """aglowctl adopt 'P2*' --of ui1:/var/lib/aglowd#3f9a2c1b --reason "its host is lost" --yes""",
    ): "tests/world/test_three_daemons.py",
    ("docs/add-a-step", "class Announce(Handler):"): "tests/test_docs.py",
    ("docs/add-a-step", "    Announce,"): "tests/test_docs.py",
    ("docs/add-a-step", "[steps.announce]"): "tests/test_docs.py",
    ("docs/add-a-step", "def test_it_posts_once_and_waits_for_the_confirmation():"): "tests/test_docs.py",
    (
        "docs/launcher",
        "python3 pilot.py --type TYPE [--key KEY] [--heartbeat S] [--max-time S] [--max-tokens N] [--scratch DIR] [--idle S] [--patience S]",
    ): "tests/test_screens.py",
    ("docs/scale", "python -m bench year --dir /dev/shm"): "tests/test_package.py",
    ("docs/scale", "python -m bench growth"): "tests/test_bench_growth.py",
    ("docs/scale", "python -m bench limits"): "tests/test_package.py",
    ("docs/scale", "python -m bench.workload_w install dbos"): "tests/test_workload_w.py",
    ("docs/install", "P14Hetdex04: archived"): "tests/test_screens.py",
    ("docs/install", "apt-get install ./dist/aglowd_*.deb"): "tests/real/test_packages.py",
    ("docs/install", "dnf install ./dist/aglowd-*.rpm"): "tests/real/test_packages.py",
    ("docs/install", "make install"): "tests/real/test_packages.py",
}
"""In whole or in what matters."""

ROOT_OF_A_HOST = "it changes a host, as root"
BY_SYSTEMD = "systemd reads it, which only tests/real has"
BY_USER = "it changes a user's account, or asks for programs that are not everywhere"

UNTRIED: Mapping[tuple[str, str], str] = {
    ("README", " LTA stager  ─┐                                ┌─ handlers/stage.py    ─┐"): "a drawing",
    (
        "README",
        "make demo",
    ): "it makes an environment; `aglowd demo` itself is tried by tests/world and tests/test_screens.py",
    ("README", "pip install ."): "it installs into the environment that is active",
    ("docs/install", "make demo"): "as in README",
    ("docs/install", "install -o aglowd -g aglowd -m 640 fields.csv /var/lib/aglowd/"): ROOT_OF_A_HOST,
    ("docs/install", "install -d -m 700 /etc/credstore"): ROOT_OF_A_HOST,
    ("docs/install", "runuser -u aglowd -- aglowd check --config /etc/aglowd/aglowd.toml"): ROOT_OF_A_HOST,
    ("docs/install", "systemctl enable --now aglowd"): ROOT_OF_A_HOST,
    ("docs/install", "ReadWritePaths=/project/lofar/catalogue"): BY_SYSTEMD,
    ("docs/install", "systemctl enable --now aglowd@lotss"): ROOT_OF_A_HOST,
    ("docs/install", "pipx install --python python3.11 ."): BY_USER,
    ("docs/install", "python3.11 -m venv ~/.local/lib/aglowd"): BY_USER,
    ("docs/install", "conda create --name aglowd python=3.11 pip"): BY_USER,
    ("docs/install", "systemctl --user enable --now aglowd"): BY_USER,
    ("docs/install", "setsid ~/aglowd/run </dev/null &"): BY_USER,
    ("docs/install", "systemctl restart aglowd"): ROOT_OF_A_HOST,
    ("docs/jobs", "loginctl enable-linger aglowd"): ROOT_OF_A_HOST,
    ("docs/jobs", "KillMode=process"): BY_SYSTEMD,
    ("docs/jobs", "RestrictNamespaces=no"): BY_SYSTEMD,
    ("docs/run", "rule_files: [/usr/share/aglowd/prometheus/alerts.yml]"): "Prometheus reads it",
}
"""Nothing holds these to the product but those who read them."""


def place_of(page: str, lines: list[str]) -> tuple[str, str] | None:
    """The entry that names the block, if any does."""
    return next(((page, line) for line in lines if (page, line) in TESTED or (page, line) in UNTRIED), None)
