"""Mistakes in staging: windows that are overdone, files given back too early or never, a stager's word that is believed."""

from __future__ import annotations

from .kinds import STORE, STORE_TESTS, Mutant, mutant

WINDOWS = "aglowd/watchers/windows.py"
WINDOW_TESTS = "tests/watchers/test_windows.py"
STAGE = "aglowd/handlers/stage.py"
STAGE_TESTS = "tests/handlers/test_stage.py"
RELEASE = "aglowd/handlers/release.py"
RELEASE_TESTS = "tests/handlers/test_release.py"

STAGING: tuple[Mutant, ...] = (
    mutant(
        "what keeps files online hides what the field waits for",
        STORE_TESTS,
        STORE + "views.py",
        'step["name"] in followers, step["since"]',
        'step["since"]',
    ),
    # --- how much may be staged at once
    mutant(
        "a request has one file too many",
        WINDOW_TESTS,
        WINDOWS,
        "most = min(most, limits.request_files, ",
        "most = min(most + 1, limits.request_files + 1, ",
    ),
    mutant(
        "a request is limited by its files and not by their size",
        WINDOW_TESTS,
        WINDOWS,
        "most = min(most, limits.request_files, max(1, limits.request_bytes // file_bytes))\n",
        "most = min(most, limits.request_files)\n",
    ),
    mutant(
        "one file too many is staged at all sites",
        WINDOW_TESTS,
        WINDOWS,
        "            room, why = limits.files - files.total(), ",
        "            room, why = limits.files + 1 - files.total(), ",
    ),
    mutant(
        "one file too many is staged at a site",
        WINDOW_TESTS,
        WINDOWS,
        "        room, why = limits.site_files[site] - files[site], ",
        "        room, why = limits.site_files[site] + 1 - files[site], ",
    ),
    mutant(
        "one request too many runs at a site",
        WINDOW_TESTS,
        WINDOWS,
        "        if requests[site] >= limits.site_requests[site]:\n",
        "        if requests[site] > limits.site_requests[site]:\n",
    ),
    mutant(
        "what is granted in a round does not count in it",
        WINDOW_TESTS,
        WINDOWS,
        "        answers[turn.key] = count\n        files[site] += count\n",
        "        answers[turn.key] = count\n",
    ),
    mutant(
        "requests that nobody of us holds do not count",
        WINDOW_TESTS,
        WINDOWS,
        "    for site, count in running:\n        files[site] += count\n",
        "    for site, count in ():\n        files[site] += count\n",
    ),
    mutant(
        "files that wait to be processed do not count",
        WINDOW_TESTS,
        WINDOWS,
        "        if limits.site_held[site] - kept - files[site] < room:\n",
        "        if limits.site_held[site] - files[site] < room:\n",
    ),
    mutant(
        "whoever wants least overtakes",
        WINDOW_TESTS,
        WINDOWS,
        "            answers |= dict.fromkeys([one.key for one in (turn, *queues.pop(site))], why)\n            continue\n",
        "            answers[turn.key] = why\n            if not queues[site]:\n                del queues[site]\n            continue\n",
    ),
    mutant(
        "a silent stager has nothing that runs",
        WINDOW_TESTS,
        WINDOWS,
        "running = await self._running(granted, silent)",
        "running = []",
    ),
    # --- which files are asked for, and how often
    mutant(
        "what is being staged is asked for again",
        STAGE_TESTS,
        STAGE,
        "surl not in away and surl not in busy and times[surl] < most",
        "surl not in away and times[surl] < most",
    ),
    mutant(
        "a file is asked for once too often",
        STAGE_TESTS,
        STAGE,
        "surl not in busy and times[surl] < most",
        "surl not in busy and times[surl] <= most",
    ),
    mutant(
        "more is asked for than was granted",
        STAGE_TESTS,
        STAGE,
        'tuple(wanted[: turn["files"]])',
        "tuple(wanted)",
    ),
    mutant(
        "a window is given back while its request runs",
        STAGE_TESTS,
        STAGE,
        "        waits = [look, *follow.values(), *turns]\n",
        "        waits = [look, *follow.values()]\n",
    ),
    mutant(
        "a request that ended is believed, wherever its files are",
        "tests/virtual/test_false_success.py",
        STAGE,
        '        missing: list[str] = looked.data["missing"]\n',
        '        missing: list[str] = looked.data["missing"] if running or not asked else []\n',
    ),
    # --- pins
    mutant(
        "files are given back when the first of several steps has ended",
        RELEASE_TESTS,
        RELEASE,
        "        if all(states):\n",
        "        if any(states):\n",
    ),
    mutant(
        "pins are never renewed",
        RELEASE_TESTS,
        RELEASE,
        "        if due:\n",
        "        if False:\n",
    ),
    mutant(
        "pins are renewed when they have ended",
        RELEASE_TESTS,
        RELEASE,
        "RENEWED = 0.8\n",
        "RENEWED = 1.01\n",
    ),
    mutant(
        "pins are renewed once",
        RELEASE_TESTS,
        RELEASE,
        "due.update(dict.fromkeys(surls, at + age_s))",
        "due.update(dict.fromkeys(surls, math.inf))",
    ),
    mutant(
        "renewals are not given back",
        RELEASE_TESTS,
        RELEASE,
        "        requests = [*params.requests, *_renewals(seen)]\n        given = ",
        "        requests = [*params.requests]\n        given = ",
    ),
    mutant(
        "a release is not looked at",
        RELEASE_TESTS,
        RELEASE,
        "        if left and rounds < ROUNDS:\n",
        "        if False:\n",
    ),
    mutant(
        "a cancelled step keeps its pins",
        RELEASE_TESTS,
        RELEASE,
        "if seen.count(ReleaseFiles) < len(requests) else None",
        "if False else None",
    ),
    mutant(
        "one SURL is asked for letter by letter",
        "tests/sim/test_stager_contract.py",
        "aglowd/grid/stager.py",
        "    if isinstance(surls, str):\n",
        "    if isinstance(surls, bytes):\n",
    ),
    mutant(
        "windows of bulk requests are as large as others",
        WINDOW_TESTS,
        WINDOWS,
        "limits.site_request_files.get(site, limits.request_files)",
        "limits.request_files",
    ),
    mutant(
        "the room that is being taken is taken for files of the usual size",
        WINDOW_TESTS,
        WINDOWS,
        "turn.granted * (turn.file_bytes or limits.file_bytes)",
        "turn.granted * limits.file_bytes",
    ),
    mutant(
        "kept files hold back what they wait for",
        WINDOW_TESTS,
        WINDOWS,
        "self.priority >= turn.priority and self.key",
        "self.key",
    ),
    mutant(
        "files that were online are pinned by nobody",
        RELEASE_TESTS,
        RELEASE,
        "if surl in pinned else -math.inf for surl",
        "if True else -math.inf for surl",
    ),
    mutant(
        "a release that was refused is forgotten",
        RELEASE_TESTS,
        RELEASE,
        '                left[str(request)] = "" if record is None else record.reason\n',
        "                pass\n",
    ),
    mutant(
        "one bad file keeps the answers of all others back",
        "tests/watchers/test_looks.py",
        "aglowd/watchers/localities.py",
        "            if len(subjects) == 1:\n",
        "            if True:\n",
    ),
    mutant(
        "a stager that refuses at once is asked all the more",
        STAGE_TESTS,
        STAGE,
        "last[surl] + AGAIN_S * 2 ** (times[surl] - 1) - now if",
        "last[surl] - now if",
    ),
    mutant(
        "a renewal takes no turn",
        RELEASE_TESTS,
        RELEASE,
        '            if granted["files"]:\n                return Do.all(_renewal(tuple(due[: granted["files"]]), params, len(made)))\n',
        "            return Do.all(_renewal(tuple(due), params, len(made)))\n",
    ),
    mutant(
        "what an abort has set free counts as pinned",
        STAGE_TESTS,
        STAGE,
        'return undone if status == "aborted" else over',
        "return over",
    ),
    mutant(
        "one request that StageIT does not show hides the others",
        "tests/grid/test_stageit.py",
        "aglowd/grid/stageit.py",
        "for part in (numbers[:half], numbers[half:]) if half else ():",
        "for part in ():",
    ),
)
