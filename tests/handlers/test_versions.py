"""At which version something is that others change, and whether that is news."""

from __future__ import annotations

import msgspec
import pytest

from aglowd.handlers.versions import GitHead, ImageDigest
from aglowd.model import Done, Json, Subject

from .conftest import STEP, params, seen, the_failure, the_wait

HEAD = Subject("git_head", STEP.key, {"url": "https://git.example.org/x", "ref": "master"})
IMAGE = Subject("image", STEP.key, {"image": "docker://quay.example/a:v1"})


@pytest.mark.parametrize(("known", "changed"), [("", True), ("a" * 40, True), ("b" * 40, False)])
def test_a_commit_is_news_if_it_is_not_the_known_one(known: str, changed: bool) -> None:
    given = params(GitHead, url="https://git.example.org/x", ref="master", known=known)
    assert "master" in the_wait(GitHead().start(STEP, given), HEAD)
    found = seen({HEAD.key: {"commit": "b" * 40, "problem": ""}})
    assert GitHead().react(STEP, given, found) == Done({"commit": "b" * 40, "changed": changed})


@pytest.mark.parametrize(("known", "changed"), [("", True), ("sha256:0", True), ("sha256:1", False)])
def test_a_digest_is_news_if_it_is_not_the_known_one(known: str, changed: bool) -> None:
    given = params(ImageDigest, image="docker://quay.example/a:v1", known=known)
    assert "quay.example" in the_wait(ImageDigest().start(STEP, given), IMAGE)
    found = seen({IMAGE.key: {"digest": "sha256:1", "problem": ""}})
    assert ImageDigest().react(STEP, given, found) == Done({"digest": "sha256:1", "changed": changed})


def test_what_is_not_there_fails_the_attempt() -> None:
    given = params(GitHead, url="https://git.example.org/x", ref="master")
    problem: Json = {"commit": "", "problem": "no branch"}
    assert the_failure(GitHead().react(STEP, given, seen({HEAD.key: problem}))) == "no branch"
    image = params(ImageDigest, image="docker://quay.example/a:v1")
    gone: Json = {"digest": "", "problem": "no image"}
    assert the_failure(ImageDigest().react(STEP, image, seen({IMAGE.key: gone}))) == "no image"


@pytest.mark.parametrize("values", [{"url": ""}, {"url": "-x"}, {"url": "x", "ref": "-x"}, {"url": "x", "ref": ""}])
def test_what_is_no_repository_is_told_before_anything_runs(values: dict[str, Json]) -> None:
    with pytest.raises(msgspec.ValidationError, match="say the repository"):
        params(GitHead, **values)


def test_what_is_no_image_is_told_before_anything_runs() -> None:
    with pytest.raises(msgspec.ValidationError, match="names no image"):
        params(ImageDigest, image="a b")
    assert params(ImageDigest, image="gsiftp://h/p/x.sif").image
