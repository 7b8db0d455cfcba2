"""Mistakes in what came from AGLOW: sandboxes, tokens of GRID_LRT's configurations, proxies of projects."""

from __future__ import annotations

from .kinds import EFFECTS, GRID, LOOK_TESTS, Mutant, mutant

SANDBOX_TESTS = "tests/effects/test_sandboxes.py"
CHECKOUT_TESTS = "tests/grid/test_checkouts.py"
TOKEN_TESTS = "tests/grid/test_tokens.py tests/handlers/test_tokens.py"

SANDBOXES: tuple[Mutant, ...] = (
    mutant(
        "a second try packs what a branch is by then",
        SANDBOX_TESTS,
        EFFECTS + "sandboxes.py",
        "fixed = msgspec.structs.replace(one, commit=noted) if noted else one",
        "fixed = one",
    ),
    mutant(
        "what lies under the name of a sandbox is taken for it",
        SANDBOX_TESTS,
        EFFECTS + "sandboxes.py",
        'if await asyncio.to_thread(_digest, data) != noted["sha256"]:',
        "if False:",
    ),
    mutant(
        "another layout has the same name",
        SANDBOX_TESTS,
        EFFECTS + "sandboxes.py",
        "(one.url, one.directory, commits[one.name])",
        "(one.url, commits[one.name])",
    ),
    mutant(
        "git's own files are packed",
        SANDBOX_TESTS,
        EFFECTS + "sandboxes.py",
        'directories[:] = [name for name in directories if name != ".git" and (directory or name[0] != ".")]',
        'directories[:] = [name for name in directories if directory or name[0] != "."]',
    ),
    mutant(
        "a clone asks for a password",
        CHECKOUT_TESTS,
        GRID + "checkouts.py",
        '"GIT_TERMINAL_PROMPT": "0",',
        "",
    ),
    mutant(
        "a server that is away has no such repository",
        CHECKOUT_TESTS,
        GRID + "checkouts.py",
        "raise Permanent(text) if any(word in cloned.stderr for word in _NO_SUCH) else Temporary(text)",
        "raise Permanent(text)",
    ),
    mutant(
        "a token that is done is a new one if its configuration says so",
        TOKEN_TESTS,
        GRID + "tokens.py",
        "return name in base and type(value) is type(base[name]) and bool(value == base[name])",
        "return name in base",
    ),
    mutant(
        "results that are named by the other number have one name",
        TOKEN_TESTS,
        "aglowd/handlers/tokens.py",
        "return {name: start} if name not in params.keys and names_field(params.config, name) else {}",
        "return {}",
    ),
    mutant(
        "the common proxy is looked at for a project's",
        LOOK_TESTS,
        "aglowd/watchers/proxies.py",
        "proxy = Proxy(self.world.processes, path, self.clock) if path else self.world.proxy",
        "proxy = self.world.proxy",
    ),
    mutant(
        "pilots of a project run under the common proxy",
        "tests/test_batches.py",
        "aglowd/batches.py",
        "means.under(wanted.proxy)",
        "means",
    ),
)
